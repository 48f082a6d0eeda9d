// The way to the daemon: a session, calls, and whole views, the present one first: nothing is lost with a connection.

/** This origin's half of the session; the cookie is the other one. */
const KEY = "cutover-key";
/** Between two tries (ms). */
const PAUSE = 1000;
/** The daemon says something every five seconds; a stream so long silent (ms) is lost. */
const SILENCE = 15000;
/** A page so long unseen gives its connection back (ms): a browser has few of them. */
const UNSEEN = 60000;

/** The daemon answered, and not with what was asked for. */
export class Refused extends Error {
	/** Its word for why, or the status of an answer without one. */
	code = "";
}

/** @type {Ask} */
async function ask(path, init = {}) {
	const headers = { "x-cutover-key": localStorage.getItem(KEY) ?? "" };
	const response = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
	if (response.ok) return response;
	const { error } = await response.json().catch(() => ({}));
	const code = error?.code ?? `${response.status}`;
	throw Object.assign(new Refused(error?.message ?? `the daemon answered ${code}`), { code });
}

/** @param {string} token */
export async function login(token) {
	const response = await ask("/api/session", { method: "POST", body: JSON.stringify({ token }) });
	localStorage.setItem(KEY, (await response.json()).key);
}

export async function logout() {
	localStorage.removeItem(KEY);
	await ask("/api/session", { method: "DELETE" });
}

/** Whether this browser may have a session. */
export const mayBeIn = () => localStorage.getItem(KEY) !== null;

/** @type {Call} */
export const call = async (method, params) =>
	(await ask(`/api/rpc/${method}`, { method: "POST", body: JSON.stringify(params) })).json();

/** Until the session is over. @param {Hearer} hearer */
export async function follow(hearer) {
	while (!hearer.isOver()) {
		let rests = false;
		try {
			rests = await hear(hearer);
		} catch (error) {
			if (error instanceof Refused && error.code === "401") return hearer.out();
		}
		hearer.lost();
		await new Promise((go) => setTimeout(go, PAUSE));
		while (rests && document.hidden) await new Promise((go) => addEventListener("visibilitychange", go, { once: true }));
	}
}

/** Whether the page rests, unseen. @param {Hearer} hearer */
async function hear(hearer) {
	const cut = new AbortController();
	let silence = setTimeout(() => cut.abort(), SILENCE);
	let seen = Date.now();
	try {
		const stream = await ask("/api/events", { signal: cut.signal });
		const response = await ask("/api/services", { signal: cut.signal });
		const all = await response.json();
		hearer.all(all.services, all.broken, Date.parse(response.headers.get("date") ?? "") || Date.now());
		const reader = /** @type {ReadableStream<Uint8Array>} */ (stream.body).getReader();
		const decoder = new TextDecoder();
		let text = "";
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return false;
			clearTimeout(silence);
			silence = setTimeout(() => cut.abort(), SILENCE);
			if (!document.hidden) seen = Date.now();
			if (Date.now() - seen > UNSEEN) return true;
			const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
			text = events.pop() ?? "";
			for (const event of events) {
				const data = /^data: ([^\n]*)/m.exec(event)?.[1];
				if (data) hearer.view(JSON.parse(data));
			}
		}
	} finally {
		clearTimeout(silence);
		cut.abort();
	}
}

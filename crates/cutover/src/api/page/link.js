// The way to the daemon: a session, calls, and a stream of views. What comes is whole views, the present one first, so
// nothing is lost with a connection that is lost.

/** The half of the session that this origin keeps; the cookie is the other one. */
const KEY = "cutover-key";
/** Between two tries (ms). */
const PAUSE = 1000;
/** The daemon says something every five seconds; a stream so long silent is lost (ms). */
const SILENCE = 15000;
/** A page so long unseen gives its connection back (ms): a browser has few of them. */
const UNSEEN = 60000;

/** The daemon answered, and not with what was asked for. */
export class Refused extends Error {
	status = 0;
}

/** @type {Ask} */
async function ask(path, init = {}) {
	const headers = { "x-cutover-key": localStorage.getItem(KEY) ?? "" };
	const response = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
	if (response.ok) return response;
	const said = await response.json().catch(() => ({}));
	const { status } = response;
	throw Object.assign(new Refused(said.error?.message ?? `the daemon answered ${status}`), { status });
}

/** Exchanges a token for a session. @param {string} token */
export async function login(token) {
	const response = await ask("/api/session", { method: "POST", body: JSON.stringify({ token }) });
	localStorage.setItem(KEY, (await response.json()).key);
}

/** Ends the session, here and there. */
export async function logout() {
	localStorage.removeItem(KEY);
	await ask("/api/session", { method: "DELETE" });
}

/** Whether this browser may have a session. */
export const mayBeIn = () => localStorage.getItem(KEY) !== null;

/** Calls a method. @type {Call} */
export const call = async (method, params) =>
	(await ask(`/api/rpc/${method}`, { method: "POST", body: JSON.stringify(params) })).json();

/** Hears the daemon until the session is over. @param {Hearer} hearer */
export async function follow(hearer) {
	while (!hearer.isOver()) {
		let rests = false;
		try {
			rests = await hear(hearer);
		} catch (error) {
			if (error instanceof Refused && error.status === 401) return hearer.out();
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
				const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("");
				if (data) hearer.view(JSON.parse(data));
			}
		}
	} finally {
		clearTimeout(silence);
		cut.abort();
	}
}

// The page: what it knows, what a person can do, and the way from what it knows to the document. It holds no truth of its
// own: it shows what the daemon said last, and says so when it does not hear it.
import { button, h, lay, title, urgent } from "./dom.js";
import * as link from "./link.js";
import { loginPage } from "./login.js";
import { asCall, expects, fits, orderDialog } from "./orders.js";
import { runPage } from "./run.js";
import { servicePage, servicesPage } from "./service.js";
import { clock, isOpen, standing } from "./words.js";

/** Clocks so near are one (ms): the daemon tells whole seconds. */
const NEAR = 2000;

const unheard = () => ({ live: false, since: Date.now() });
/** @type {Model} */
const model = {
	stage: "starting", notice: "", busy: false, link: unheard(), now: Date.now(),
	views: new Map(), broken: {}, route: { service: null, run: null }, runs: new Map(), generations: new Map(), logs: new Map(), differences: new Map(),
	logOpen: false, logOf: 0, looks: new Map(), draft: null,
};
let skew = 0;
let session = 0;
/** What the lists of each service were asked for. @type {Map<string, string>} */
const asked = new Map();

/** @type {Deeds} */
const deeds = {
	async login(token) {
		model.busy = true;
		render();
		const answer = await settled(link.login(token));
		Object.assign(model, { busy: false, notice: "" });
		if (answer.state === "told") begin();
		else leave(answer.why);
		render();
	},
	logout() {
		leave("You are logged out.");
		link.logout().catch(() => {});
	},
	draft(service, word, generation = null, version = "") {
		const view = model.views.get(service);
		if (!view) return;
		const { orders, report } = view;
		model.draft = {
			word, service, generation, version, expected: expects(view, word), approves: report.awaits?.plan ?? null, hold: false,
			data: orders.rollback_keep !== null && orders.rollback_restore === null ? "restore" : "keep", plan: null, sent: false, refusal: null,
		};
		render();
	},
	revise(change) {
		Object.assign(model.draft ?? {}, change);
		render();
	},
	async plan() {
		const { draft } = model;
		if (!draft) return;
		/** @type {Asked<Plan>} */
		const plan = { state: "asked" };
		draft.plan = plan;
		render();
		const answer = await settled(link.call("update.plan", { service: draft.service, version: draft.version || null }));
		// By now it may be another version that is asked for.
		if (draft.plan === plan) draft.plan = answer;
		asked.clear();
		refresh();
	},
	async give() {
		const { draft } = model;
		if (!draft || draft.sent || !model.link.live || !fits(model.views.get(draft.service), draft)) return;
		Object.assign(draft, { sent: true, refusal: null });
		render();
		const answer = await settled(link.call(...asCall(draft)));
		draft.sent = false;
		if (answer.state === "failed") draft.refusal = answer;
		else if (model.draft === draft) deeds.close();
		render();
	},
	close() {
		document.querySelector("dialog")?.close();
		model.draft = null;
		render();
		if (document.activeElement === document.body) heading()?.focus();
	},
	look(service) {
		model.looks.set(service, { state: "asked" });
		render();
		learn(model.looks, service, "versions.available", { service });
	},
	compare: (service, generation) => learn(model.differences, service, "generations.diff", { service, generation }),
	openLog(open) {
		model.logOpen = open;
		readLog();
	},
	chooseLog(instance) {
		model.logOf = instance;
		model.logs.clear();
		readLog();
		render();
	},
};

/** @type {Settle} */
async function settled(promise) {
	try {
		return { state: "told", value: await promise };
	} catch (error) {
		const [code, why] = error instanceof link.Refused ? [error.code, error.message] : ["", "The daemon did not answer."];
		return { state: "failed", code, why };
	}
}

/** @type {Learn} */
async function learn(into, service, method, params) {
	into.set(service, await settled(link.call(method, params)));
	render();
}

function begin() {
	const mine = ++session;
	const isOver = () => mine !== session;
	link.follow({
		isOver,
		all(views, broken, now) {
			if (isOver()) return;
			skew = Math.abs(now - Date.now()) < NEAR ? 0 : now - Date.now();
			Object.assign(model, { stage: "in", link: { live: true, since: Date.now() }, broken });
			model.views = new Map(views.map((view) => [view.service, view]));
			model.looks.clear();
			asked.clear();
			refresh();
		},
		view(view) {
			if (isOver()) return;
			const { service, available, report } = view;
			// What a look came to is said until something else is so.
			if (isOpen(report) || available?.seenAt !== model.views.get(service)?.available?.seenAt) model.looks.delete(service);
			model.views.set(service, view);
			refresh();
		},
		lost() {
			if (isOver() || !model.link.live) return;
			model.link = unheard();
			render();
		},
		out() {
			if (!isOver()) leave("You are not logged in any more: you logged out elsewhere, or the daemon was started again.");
		},
	});
}

/** @param {string} notice */
function leave(notice) {
	session++;
	for (const known of Object.values(model)) if (known instanceof Map) known.clear();
	Object.assign(model, { stage: "out", notice, draft: null, broken: {}, link: unheard() });
	render();
}

/** Shows what is known, and asks for the lists of the service shown when a run of it began or ended. */
function refresh() {
	render();
	const view = model.views.get(model.route.service ?? "");
	if (!view) return;
	const { service, report, current } = view;
	const about = JSON.stringify([report.runId, report.ended, report.revertedBy, report.target?.generation, current?.generation]);
	if (asked.get(service) === about) return;
	asked.set(service, about);
	learn(model.runs, service, "update.runs.list", { service });
	learn(model.generations, service, "generations.list", { service });
}

async function readLog() {
	const service = model.route.service;
	if (!service || !model.logOpen || !model.link.live || document.hidden) return;
	const instance = model.logOf;
	const answer = await settled(link.call("logs.tail", { service, instance, limit: 200 }));
	if (instance === model.logOf) model.logs.set(service, answer);
	render();
}

function route() {
	// Names are plain words: nothing of them is encoded.
	const [service, , run = null] = location.hash.replace(/^#\/?/, "").split("/").map((part) => part || null);
	const moved = model.route.service !== service || model.route.run !== run;
	model.route = { service, run };
	if (moved) Object.assign(model, { logOpen: false, logOf: 0 });
	model.logs.clear();
	model.differences.clear();
	refresh();
	if (!moved) return;
	scrollTo(0, 0);
	heading()?.focus();
}

const heading = () => document.querySelector("h1");

const [root, status] = ["cutover-page", "#status"].map((of) => /** @type {Element} */ (document.querySelector(of)));
let rendering = false;
let told = "";

/** Lays the model over the document, once for all that changed meanwhile. */
function render() {
	if (rendering) return;
	rendering = true;
	queueMicrotask(() => {
		rendering = false;
		// Nothing goes on here that is not heard of.
		const isLost = model.stage === "in" && !model.link.live;
		model.now = (isLost ? model.link.since : Date.now()) + skew;
		document.body.dataset.link = isLost ? "lost" : "live";
		try {
			draw();
		} catch (error) {
			// What was shown may not be so any more. What is told next is tried again.
			lay(root, [h("main", urgent("bad", `${error}. Load it again.`, "This page cannot be drawn: "))]);
			say("");
		}
	});
}

function draw() {
	lay(root, [frame(), content(), orderDialog(model, deeds)].filter((part) => part !== null));
	const dialog = root.querySelector("dialog");
	if (dialog && !dialog.open) dialog.showModal();
	say([...model.views.values()].filter(({ service }) => (model.route.service ?? service) === service)
		.map((view) => `${view.service}: ${standing(view, model.link.live).word}. ${view.report.sentence}`).join(" "));
}

function frame() {
	const { service, run } = model.route;
	const { live, since } = model.link;
	return h("header", { key: "frame" },
		h("a.brand", { href: "#/", "aria-label": "cutover: all services" },
			h("img", { src: document.querySelector("link")?.href, alt: "" }), "cutover"),
		model.stage === "in" && [
			service && h("nav", { "aria-label": "Where you are" },
				h("a", { href: "#/" }, "Services"), " / ", run ? [h("a", { href: `#/${service}` }, service), " / run"] : service),
			h("div.state",
				h("span", { class: live ? "quiet" : "cut", role: "status" }, live ? "connected" : `not connected since ${clock(since)}`),
				button("Log out", deeds.logout, { class: "small" }))]);
}

function content() {
	if (model.stage === "out") return loginPage(model, deeds);
	if (model.stage === "starting") return h("main", title("cutover"), h("p", "Asking the daemon …"));
	const { service, run } = model.route;
	if (service === null) return servicesPage(model, deeds);
	return run && model.views.has(service) ? runPage(model, service, run) : servicePage(model, service, deeds);
}

/** Says to those who do not see the page what has changed on it, once. @param {string} text */
function say(text) {
	if (told && text !== told) lay(status, [text]);
	told = text;
}

class CopyLine extends HTMLElement {
	static observedAttributes = ["command"];

	attributeChangedCallback() {
		this.show("Copy");
	}

	/** @param {string} label */
	show(label) {
		const command = this.getAttribute("command") ?? "";
		const copy = async () => {
			// Without a clipboard (no loopback name, no TLS) a person copies what is selected.
			const done = await navigator.clipboard?.writeText(command).then(() => true, () => false);
			if (!done) getSelection()?.selectAllChildren(this.children[0]);
			this.show(done ? "Copied" : "Selected");
			setTimeout(() => this.show("Copy"), 2000);
		};
		lay(this, [h("code", command), button(label, copy, { class: "small", "aria-label": `${label}: ${command}` })]);
	}
}

customElements.define("copy-line", CopyLine);
addEventListener("hashchange", enter);
setInterval(render, 1000);
setInterval(readLog, 2000);

/** A token in the address is used and taken out of it; everything else there is where to go. */
function enter() {
	const token = location.hash.startsWith("#token=") ? location.hash.slice("#token=".length) : null;
	if (token === null) return route();
	history.replaceState(null, "", "/");
	route();
	deeds.login(token);
}

enter();
if (model.stage === "starting" && !model.busy) {
	if (link.mayBeIn()) begin();
	else leave("");
}

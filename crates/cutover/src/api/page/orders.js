// Orders, and what each leads to, said before it is given.
import { button, h, row, urgent } from "./dom.js";
import { findingList, saidOfItself } from "./run.js";
import { added, lasting, named, numbered, plain } from "./words.js";

/** @type {Record<OrderWord, string>} */
const VERBS = {
	approve: "Approve", update: "Update", rollback: "Roll back", start: "Start", stop: "Stop", restart: "Restart", hold: "Hold the run", cancel: "Cancel the run",
	retry: "Try again", recover_rollback: "Go back", accept: "Accept as it is",
};

/** @type {Possible} */
const isPossible = (view, word) => (word === "rollback" ? ["rollback_keep", "rollback_restore"] : [word]).some((word) => view.orders[word] === null);

/** @type {Expects} */
export const expects = ({ current, report }, word) => ({
	generation: current?.generation, version: current?.release.version,
	// All others are about a run.
	run: ["approve", "update", "rollback", "stop", "restart"].includes(word) ? null : report.runId,
});

/** @type {FitsNow} */
export const fits = (view, { word, expected: { run } }) => !!view && isPossible(view, word) && (!run || run === view.report.runId);

/** @type {Part} */
export const controls = (model, view, deeds) => {
	const words = /** @type {OrderWord[]} */ (Object.keys(VERBS)).filter((word) => isPossible(view, word));
	const first = ["retry", "start", "approve", "update"].find((word) => view.orders[word] === null);
	return h("div.controls", { role: "group", "aria-label": `Orders to ${view.service}` }, words.map((word) =>
		button(`${VERBS[word]} …`, () => deeds.draft(view.service, word), { key: word, class: word === first && "main", off: !model.link.live })));
};

/** @type {AsCall} */
export function asCall({ word, service, expected, version, generation, data, hold, approves }) {
	const of = { service, expected };
	if (word === "update") return ["update.run", { ...of, version: version || null, hold }];
	if (word === "rollback") return ["update.rollback", { ...of, data, generation }];
	if (word === "approve") return ["update.approve", { ...of, plan: approves }];
	if (["cancel", "hold"].includes(word)) return [`update.${word}`, of];
	if (["start", "stop", "restart"].includes(word)) return [`service.${word}`, of];
	return ["update.recover", { ...of, recover: word === "recover_rollback" ? "rollback" : word }];
}

/** @type {Consequences} */
function consequences(view, { word, version, data, hold }) {
	const { settings: { policy, strategy, class: kind }, report, current, listen, process, orders } = view;
	const now = `${current?.release.version ?? "nothing"}${process ? ` (pid ${process.pid})` : ""}`;
	const target = report.version ?? "the target";
	const isParked = report.phase === "parked";
	// What shall not run cannot be stopped. What shall, and has ended for good, is started by every run.
	const isKept = orders.stop !== null;
	const goesOn = isKept ? "" : orders.start === null ? `, and starts ${now} again meanwhile` : `, while ${now} goes on`;
	const meanwhile = listen.length
		? `Requests wait meanwhile, for at most ${lasting(policy.hold)}; open WebSockets are closed and can come back.`
		: "There is no front: clients get no connection meanwhile.";
	const decided = "declared maintenance: a person decides.";
	const reached = "Clients reach it when it has proven itself.";
	const isLate = kind === "migrated" && policy.restoreAfterRelease === "refused" && policy.release === "after_prove";
	const failed = policy.rollback === "never" ? `If it does not prove itself: ${decided}`
		: `If it does not prove itself, ${current?.release.version} comes back, with the same proof.${isLate ? ` Once clients have reached it: ${decided}` : ""}`;
	const { approve, windows } = policy.clearance;
	const switched = isKept ? ["The service is stopped and stays so: it is switched, and “Start” proves it later."]
		: !current ? ["Then starts it for the first time. Nothing serves until it has proven itself."] : [
		windows.length ? "It stops nothing outside its window." : "",
		`Then ${now} is ${strategy === "signal" ? "asked by a signal to end" : "stopped"}, and the new version started and proven.`,
		meanwhile, kind === "none" ? "" : "Its declared data is copied, and the copy checked, before the first start.",
		failed, `After that it is watched for ${lasting(policy.watch)}.`];
	switch (word) {
		case "update":
			return [`Fetches and checks ${version || `what “${view.channel}” names`}${current ? `${goesOn}. If that fails, nothing is stopped` : ""}.`,
				hold || approve === "always" ? "Before anything is stopped it waits for an approval." : "", ...switched];
		case "approve":
			return [`Looks at ${target} once more; if that finds anything else, you are asked again.`, ...switched];
		case "hold":
			return [`The run to ${target} waits for an approval before anything is stopped. ${now} goes on.`];
		case "rollback":
			return [...(isKept ? switched : [`Stops ${now} and starts ${version || "the version before"}, with the same proof as an update.`, meanwhile]),
				data === "keep" ? "The data stays as it is."
					: "The data of that time is laid down: what was written since is given up, and kept beside.", failed];
		case "start":
			return [`Starts ${isParked ? `the switched ${target}` : now}. ${reached}`];
		case "stop":
			return [`Ends ${now}. It stays so, also across reboots, until somebody starts it.`, `Clients get ${listen.length ? "a maintenance page (503)" : "no connection"}.`];
		case "restart":
			return [`Ends ${now} and starts the same generation. ${reached}`, meanwhile];
		case "cancel":
			return [isParked ? `Takes the switch to ${target} back.` : `Gives up the run to ${target}. ${now} goes on; nothing was changed.`];
		case "retry":
			return [`Tries ${target} once more, with the same proof.`, `If it fails again: ${decided}`];
		case "recover_rollback":
			return [`Goes back to ${report.before?.release.version ?? "the version before"}, with the data that belongs to it, and proves it.`,
				kind === "migrated" ? "What was written since the switch may be given up; it is kept beside." : "", `If that fails: ${decided}`];
		case "accept":
			return [`Starts ${now} and lets clients reach it even if its proof stays incomplete.`, "It is never shown as verified: the update stays failed."];
	}
}

const DATA = {
	none: "none is declared",
	neutral: "unchanged: going back keeps what was written",
	migrated: "counts as migrated: copied first, and going back after the release takes a person’s word",
};

/** @param {Asked<Plan>} asked */
function planned(asked) {
	if (asked.state === "asked") return h("p.quiet", { role: "status" }, "Fetching and checking it …");
	if (asked.state === "failed") return asked.code === "plan_failed" ? urgent("bad", asked.why, "It would fail: ") : urgent("warn", asked.why, "Not planned: ");
	const { target, findings, ...plan } = asked.value;
	if (plan.alreadyCurrent) return h("p.banner idle", { role: "status" }, named(target), " is already current.");
	return h("div", { role: "status" },
		findings.some(({ level }) => level === "block") && h("p.banner bad", "It would end at its preflight: nothing would be stopped or switched."),
		findings.length ? findingList(findings) : h("p.quiet", "Nothing was found against it."),
		h("dl.facts",
			row("From", named(plan.before)), row("To", named(target), added(target?.release)), row("Past the cut", plan.acts.map(plain).join(", ")),
			row("Data", DATA[plan.data]), row("Space", plan.space || "not measured"), row("Proof", plan.profile)),
		saidOfItself(plan.notes));
}

/** @type {OrderDialog} */
export function orderDialog(model, deeds) {
	const { draft } = model;
	const view = draft && model.views.get(draft.service);
	if (!draft || !view) return null;
	const { word, service, generation, plan, sent, refusal } = draft;
	const fit = fits(view, draft);
	/** @type {Choice} */
	const radio = (data, label) => {
		// Said about the version before; of any other the daemon says it when it is asked.
		const no = generation ? null : view.orders[`rollback_${data}`];
		return h("label", h("input", { type: "radio", name: "data", checked: draft.data === data, onchange: () => deeds.revise({ data }) }), ` ${label}`, no && h("span.quiet", ` (no: ${no})`));
	};
	return h("dialog", { "aria-labelledby": "order", onclose: deeds.close },
		h("form", { onsubmit: (event) => { event.preventDefault(); deeds.give(); } },
			h("h2", { id: "order" }, generation ? `Go to generation ${numbered(generation)} of ${service}` : `${VERBS[word]}: ${service}`),
			word === "update" && [
				h("label", { for: "version" }, "Version"),
				h("input", {
					id: "version", autocomplete: "off", spellcheck: "false", "aria-describedby": "hint",
					oninput: ({ target }) => deeds.revise({ version: target.value.trim(), plan: null }),
				}),
				h("p.quiet", { id: "hint" }, `Empty: what “${view.channel}” names${view.available ? `, ${view.available.version} when last looked at` : ""}.`),
				h("label", h("input", { type: "checkbox", checked: draft.hold, onchange: () => deeds.revise({ hold: !draft.hold }) }), " Ask for an approval before anything is stopped")],
			word === "rollback" && h("fieldset", h("legend", "Data"), radio("keep", "Keep it as it is"), radio("restore", "Lay down the copy that belongs to the older version")),
			h("ul", { "aria-label": "What this leads to" }, consequences(view, draft).filter(Boolean).map((line) => h("li", line))),
			plan && planned(plan),
			!fit && !sent && urgent("warn", "This does not fit any more: the service has moved on."),
			refusal && (refusal.code ? urgent("bad", refusal.why, "Refused: ")
				: urgent("warn", `${refusal.why} Whether it took the order shows here as soon as it is heard again.`)),
			h("div.controls",
				button(sent ? "Asking …" : VERBS[word], null, { class: "main", off: sent || !fit || !model.link.live }),
				word === "update" && button("Plan only", deeds.plan, { off: plan?.state === "asked" || !model.link.live }),
				button(refusal ? "Close" : "Do nothing", deeds.close))));
}

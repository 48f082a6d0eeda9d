// One run: its acts, its proof, its faults.
import { h, row, section, table, title } from "./dom.js";
import { timeline } from "./line.js";
import { chip, clock, hasFailed, isOpen, moment, named, outcome, plain, sign, size, span, undertaking, unserved } from "./words.js";

const READINGS = { holds: "✓ holds", not_yet: "… not yet", contradicts: "✗ contradicts", warns: "! warns", missing: "? missing", not_applicable: "– does not apply" };

/** @param {Finding[]} findings */
export function findingList(findings) {
	const words = { block: "blocks", warn: "look at this", note: "note" };
	const order = Object.keys(words);
	const sorted = [...findings].sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
	return h("ul.findings", sorted.map(({ level, kind, text, advice }) =>
		h("li", { class: level }, h("strong", `${words[level]} · ${kind}`), " ", text, advice && h("p.quiet", advice))));
}

/** What a release says of itself. @param {string | null} [notes] */
export const saidOfItself = (notes) => notes && h("details", h("summary", "Release notes"),
	h("pre.log", { tabindex: 0, role: "region", "aria-label": "Release notes" }, notes));

/** @type {OfRun<Kid>} */
export const runParts = (model, run, view) => [
	timeline(run, model.now),
	h("ol.track", { "aria-label": "Steps" }, run.steps.map(stepLine(model, run, view))),
	run.causes.length > 0 && [
		h("h3", { key: "causes" }, run.causes.length > 1 ? "Causes, first to last" : "Cause"),
		h("ol.causes", run.causes.map(({ act, fault }) => h("li", h("strong", `${plain(act)}: ${fault.code}`), h("p.detail", { tabindex: 0 }, fault.detail))))],
	run.findings.length > 0 && [h("h3", { key: "findings" }, "What was found before"), findingList(run.findings)],
	run.facts.length > 0 && [
		h("h3", { key: "facts" }, "Facts of the verdict"),
		table("Facts of the verdict", { Fact: "", Reads: "reads", Expected: "", Observed: "", When: "figure", Source: "source" },
			run.facts.map(({ name, reading, expected, observed, at, source }) =>
				[{ class: reading }, plain(name), READINGS[reading], expected, observed, at ? clock(at) : "–", source]))],
];

/** @type {OfRun<(step: Step) => Kid>} */
const stepLine = (model, run, view) => (step) => {
	const bad = hasFailed(run, step);
	const now = step.ended === null && isOpen(run);
	const state = bad ? "bad" : now ? "busy" : step.outcome?.startsWith("skipped:") ? "skipped" : "done";
	const took = now ? model.now - step.started : step.tookMs ?? (step.ended ?? step.started) - step.started;
	return h("li", { class: `${state} ${step.direction}`, "aria-current": now && "step" },
		h("span.station", { "aria-hidden": "true" }),
		h("span.act", step.direction === "back" && "back: ", plain(step.name), bad && h("span.verdict", " failed")),
		h("span.took", span(took), now && view?.limitMs ? ` of at most ${span(view.limitMs)}` : ""),
		h("span.told", now ? progress(view?.progress) : step.outcome));
};

/** @param {View["progress"]} [told] */
const progress = (told) => told && [
	told.total !== null && h("progress", { max: told.total, value: told.done, "aria-label": told.doing }), " ", told.doing,
	(told.done > 0 || !!told.total) && `, ${amount(told, told.done)}${told.total ? ` of ${amount(told, told.total)}` : ""}`];

/** @type {Amount} */
const amount = ({ unit }, number) => unit === "bytes" ? size(number) : `${number}`;

/** @type {Part} */
const waiting = (model, { report: { awaits, sentence }, waiting }) => awaits && h("div.banner busy",
	h("p.headline", sign("busy"), sentence),
	awaits.windows.length > 0 && h("p", `It stops nothing outside of ${awaits.windows.join("; ")}`, waiting?.opensAt && `: not before ${moment(waiting.opensAt, model.now)}`, "."),
	waiting?.givesUpAt && h("p.quiet", `Given up ${moment(waiting.givesUpAt, model.now)}, if that does not come.`),
	awaits.commands.map((command) => h("copy-line", { key: command, command })));

/** @type {Part} */
export const liveRun = (model, view, deeds) => {
	const { report: run, front } = view;
	const kept = model.generations.get(view.service);
	const target = kept?.state === "told" && kept.value.generations.find(({ generation }) => generation === run.target?.generation);
	return section("live", [undertaking(run), " ", chip(outcome(run))],
		waiting(model, view, deeds) ?? h("p.lead", run.sentence),
		h("dl.facts",
			row("Begun", moment(run.started ?? 0, model.now), ` by ${run.actor}`),
			front && row("Held now", `${front.held} ${front.held === 1 ? "request" : "requests"}; longest wait ${span(front.longest_wait_ms)}`),
			run.next && row("Next", run.next)),
		target && saidOfItself(target.notes),
		runParts(model, run, view));
};

/** @type {RunPage} */
export function runPage(model, service, id) {
	const view = model.views.get(service);
	const about = view?.report.runId === id ? view : null;
	const listed = model.runs.get(service);
	const run = about?.report ?? (listed?.state === "told" ? listed.value.runs.find((run) => run.runId === id) : undefined);
	if (!run) {
		const why = listed?.state === "failed" ? listed.why : listed ? "There is no such run, or it is too long ago." : "Looking for it …";
		return h("main", title("Run"), h("p", why));
	}
	return h("main",
		title(undertaking(run), " ", chip(outcome(run))),
		h("p.lead", run.sentence),
		h("section.sheet",
			h("dl.facts",
				row("Status", run.status ? h("code", run.status) : "none: nothing was switched"),
				row("Resolution", plain(run.resolution)), row("Before", named(run.before)), row("Target", named(run.target)),
				row("Asked by", run.actor), run.origin && row("Begun by", `${run.origin.code}: ${run.origin.detail}`),
				row("Began", moment(run.started ?? 0, model.now)),
				row("Not served", unserved(run)),
				run.writes === "given_up" && row("Writes", "some that clients were told to be safe were given up"),
				run.notices.length > 0 && row("Told", run.notices.map(({ about, deliveries }) => deliveries.map(({ target, outcome }) =>
					h("div", `${plain(about.event)}: ${target.name} ${outcome ? plain(outcome.outcome) : "not yet"}`)))),
				run.revertedBy && row("Reverted by", h("a", { href: `#/${service}/run/${run.revertedBy}` }, "the run that undid it")),
				row("Run", h("code", id))),
			runParts(model, run, about)));
}

// A run as a picture: its steps, and when clients were not served.
import { h } from "./dom.js";
import { clock, hasFailed, plain, span } from "./words.js";

const BEFORE = ["resolve", "stage", "preflight", "rehearse", "await", "drain"];

/** @type {Outages} */
const outages = (run, end) => {
	/** @type {Span[]} */
	const found = [];
	let from = /** @type {number | null} */ (null);
	for (const { name, direction, started, ended, outcome } of run.steps) {
		if (!BEFORE.includes(name) && (found.length === 0 || direction === "back")) from ??= started;
		if (name === "release" && outcome === "released" && ended !== null && from !== null) {
			found.push([from, ended]);
			from = null;
		}
	}
	if (from !== null) found.push([from, end]);
	return found;
};

/** @type {Timeline} */
export function timeline(run, now) {
	const start = run.started ?? now;
	const end = Math.max(run.ended ?? now, start + 1);
	const whole = end - start;
	/** @type {Bar} */
	const bar = (from, to) => ({ x: from - start, width: Math.max(whole / 300, to - from - whole / 1000) });
	// One that was stopped before, or never ran, was cut off from nobody.
	const gaps = run.before && run.phase !== "parked" && !(run.ok && run.downtimeMs === null) ? outages(run, end) : [];
	const told = gaps.map(([from, to]) => `not served from ${clock(from)} for ${span(to - from)}`).join("; ");
	const text = `${span(whole)} in all; ${told || "nobody was cut off"}`;
	return h("figure.timeline",
		h("svg", { viewBox: `0 0 ${whole} 64`, preserveAspectRatio: "none", role: "img", "aria-label": `Timeline: ${text}` },
			gaps.map((gap) => h("rect.outage", { ...bar(...gap), y: 0, height: 64 })),
			run.steps.map((step) => {
				const [to, back] = [step.ended ?? end, step.direction === "back"];
				return h("rect", {
					class: `bar ${hasFailed(run, step) ? "bad" : back ? "back" : "forth"}`, ...bar(step.started, to), y: back ? 36 : 12, height: 16,
				}, h("title", `${plain(step.name)}: ${span(to - step.started)}`));
			})),
		h("figcaption", h("span", clock(start)), h("span", told && h("span.key", { "aria-hidden": "true" }, "■ "), text), h("span", run.ended ? clock(end) : "now")));
}

import { button, h, row, section, table, title } from "./dom.js";
import { controls } from "./orders.js";
import { liveRun, runParts, saidOfItself } from "./run.js";
import { added, ago, chip, isOpen, moment, numbered, outcome, plain, sign, size, span, standing, troubled, undertaking, unserved } from "./words.js";

/** What stays until it is resolved. @type {Part} */
const banner = (_, view) => {
	const { service, report: run, process } = view;
	const trouble = troubled(view);
	const { serving, recovery, next } = run;
	const isMaintained = run.standing === "maintenance";
	const hasFailed = run.ended !== null && !run.ok;
	if (!isMaintained && !hasFailed && !trouble) return null;
	const tone = isMaintained || trouble ? "bad" : outcome(run).tone;
	const headline = isMaintained ? run.condition : hasFailed ? run.sentence : `Trouble: ${trouble}`;
	const cause = hasFailed && run.causes[0];
	return h("section", { key: `banner ${service}`, class: `banner ${tone}`, role: tone === "bad" ? "alert" : "status", "aria-label": `${service}: attention` },
		h("p.headline", sign(tone), headline),
		isMaintained && hasFailed && run.sentence !== headline && h("p", run.sentence),
		(isMaintained || hasFailed) && trouble && h("p", `Trouble: ${trouble}`),
		cause && h("p.detail", { tabindex: 0 }, h("strong", `It failed at ${plain(cause.act)}: ${cause.fault.code}. `), cause.fault.detail),
		h("p", "Serving now: ", serving.instance ? `${serving.version} (pid ${serving.instance.pid}, generation ${numbered(serving.generation ?? 0)}).`
			: `nothing that is proven${process ? ` (pid ${process.pid} runs)` : ""}.`),
		recovery.length > 0 && h("p", "What to type, or press below:"),
		recovery.map((command) => h("copy-line", { key: command, command })),
		isMaintained && next && h("p.quiet", next));
};

/** @type {Page} */
export function servicesPage(model, deeds) {
	const views = [...model.views.values()];
	const broken = Object.entries(model.broken);
	return h("main",
		title("Services"),
		views.map((view) => banner(model, view, deeds)),
		broken.map(([name, why]) => h("section", { key: `broken ${name}`, class: "banner bad", role: "alert", "aria-label": `${name}: attention` },
			h("p.headline", sign("bad"), `${name} could not be begun`), h("p.detail", why))),
		views.length + broken.length === 0 && h("p", "No service is configured; ", h("code", "cutover config schema"), " says how."),
		h("div.cards", views.map((view) => {
			const mark = standing(view, model.link.live);
			return h("article", { key: view.service, class: `sheet card ${mark.tone}` },
				h("h2", h("a", { href: `#/${view.service}` }, view.service), " ", chip(mark)),
				h("p.lead", view.report.condition), glance(model, view, deeds));
		})));
}

/** @type {Part} */
const glance = (model, view, deeds) => {
	const { report: run, front, process, available, current, service, channel, tellings } = view;
	const { serving } = run;
	const looked = model.looks.get(service);
	const looks = looked?.state === "asked";
	const isProven = serving.instance && process && serving.instance.pid === process.pid && !serving.waived;
	const does = { serve: "serves", hold: "holds requests", maintain: "answers with maintenance" };
	return h("dl.facts",
		row("Version", h("span.version", current?.release.version ?? "none yet"), added(current?.release)),
		row("Process", process ? `pid ${process.pid}${view.since ? `, for ${span(model.now - view.since)}` : ""}` : "none"),
		row("Generation", current ? numbered(current.generation) : "–"),
		row("Health", troubled(view) ?? (isProven ? "proven, and looked at every second"
			: serving.waived ? "accepted by a person, not proven" : process ? "not proven" : "does not run")),
		row("Front", view.listen.length === 0 ? "none: clients reach the service’s own port" : !front ? `does not answer; ${serving.posture} is wanted`
			: `${front.expired ? "turns requests away: the hold took too long" : does[front.posture]}; ${front.in_flight} under way, ${front.held} held`),
		row("Available", available ? [h("span.version", available.version), available.published && `, published ${ago(Date.parse(available.published), model.now)}`,
			`, seen ${ago(available.seenAt, model.now)} `, available.homepage && [h("a", { href: available.homepage, rel: "noreferrer" }, "what it is"), " "]]
			: `nothing newer seen on “${channel}” `,
			button(looks ? "Looking …" : "Look now", () => deeds.look(service), { class: "small", off: !model.link.live || looks || isOpen(run) }),
			h("span", { role: "status" }, looked?.state === "told" ? !available && !looked.value.available && "Nothing that an update would take." : looked?.state === "failed" && looked.why), saidOfItself(available?.notes)),
		tellings.length > 0 && row("Notices", tellings.map(({ target, owed, trial, givenUp }) => h("div", `${target.name}: `,
			givenUp ? `given up: ${givenUp}` : owed ? `${owed} to be told${trial ? `, tried ${trial.tries} times: ${trial.why}` : ""}` : "knows all"))),
		row("Last run", run.runId ? [chip(outcome(run)), run.ended ? ` ${ago(run.ended, model.now)}` : ""] : "none yet"));
};

/** @type {ServicePage} */
export function servicePage(model, name, deeds) {
	const view = model.views.get(name);
	if (!view) return h("main", title(name), h("p", model.broken[name] ? `It could not be begun: ${model.broken[name]}` : "There is no such service."));
	const { report: run } = view;
	return h("main", { key: name },
		title(name, " ", chip(standing(view, model.link.live))),
		banner(model, view, deeds) ?? h("p.lead", run.serving.instance && !isOpen(run) ? run.sentence : run.condition),
		h("section.sheet", { key: "now", "aria-label": "Now" }, glance(model, view, deeds), controls(model, view, deeds)),
		isOpen(run) ? liveRun(model, view, deeds) : run.runId && section("last", [undertaking(run), " ", chip(outcome(run))],
			h("p", run.sentence, " ", h("span.quiet", moment(run.ended ?? 0, model.now))),
			h("details", h("summary", "Steps and facts"), runParts(model, run, view))),
		log(model, view, deeds), history(model, view, deeds), generations(model, view, deeds));
}

/** @type {Part} */
const log = (model, view, deeds) => {
	const asked = model.logs.get(view.service);
	const tail = asked?.state === "told" ? asked.value : null;
	return h("section.sheet", { key: "log", "aria-label": "Log" },
		h("details", { ontoggle: ({ target }) => deeds.openLog(target.open) },
			h("summary", "The service’s own log"),
			h("div.controls", ["Youngest process", "The one before"].map((label, at) =>
				button(label, () => deeds.chooseLog(at), { class: "small", "aria-pressed": `${model.logOf === at}` }))),
			asked?.state === "failed" && h("p.quiet", asked.why),
			!!tail?.tripped.length && h("p.banner bad", "Lines marked “gone”: something of the release is not there."),
			h("pre.log", { tabindex: 0, role: "region", "aria-label": "Last lines of the log" }, tail?.lines.map((line, at) => tail.tripped.includes(at)
				? h("span.tripped", h("b", "✗ gone: "), `${line}\n`) : h("span", `${line}\n`)))));
};

/** @type {WhenTold} */
const whenTold = (asked, show) => asked?.state === "told" ? show(asked.value)
	: h("p.quiet", asked?.state === "failed" ? asked.why : "…");

/** @type {Part} */
const history = (model, view) => section("history", "History",
	whenTold(model.runs.get(view.service), ({ runs }) => runs.length === 0 ? h("p.quiet", "No run yet.") :
		table("Runs", { Run: "", Outcome: "", When: "figure", Took: "figure", "Not served": "figure", By: "" }, runs.map((listed) => {
			const run = listed.runId === view.report.runId ? view.report : listed;
			return [{ key: run.runId }, h("a", { href: `#/${view.service}/run/${run.runId}` }, undertaking(run)), chip(outcome(run)),
				moment(run.started ?? 0, model.now), span((run.ended ?? model.now) - (run.started ?? 0)), unserved(run), run.actor];
		}))));

/** @type {Part} */
const generations = (model, view, deeds) => {
	const { live } = model.link;
	const isFree = live && !isOpen(view.report) && view.report.standing !== "maintenance";
	const compared = model.differences.get(view.service);
	return section("kept", "Kept versions",
		whenTold(model.generations.get(view.service), ({ generations }) => generations.length === 0 ? h("p.quiet", "Nothing is installed yet.") :
			table("Kept versions", { Generation: "", Version: "", Size: "figure", Sealed: "figure", Use: "figure" },
				generations.toReversed().map(({ generation, release, bytes, files, createdAt, notes }) => [{ key: generation },
					numbered(generation), [h("span.version", release.version), added(release), saidOfItself(notes)],
					`${size(bytes)}, ${files} files`, moment(Date.parse(createdAt), model.now),
					view.current?.generation === generation ? "current" : view.current && [
						button(`Go to ${numbered(generation)} …`, () => deeds.draft(view.service, "rollback", generation, release.version), { class: "small", off: !isFree }), " ",
						button("Compare", () => deeds.compare(view.service, generation), { class: "small", off: !live })]]))),
		h("div", { role: "status" }, compared && whenTold(compared, differing)));
};

/** @param {Difference} told */
const differing = ({ from, to, added, removed, changed, bytes }) => [
	h("p", `From ${numbered(from)} to ${numbered(to)}: ${bytes < 0 ? "−" : "+"}${size(Math.abs(bytes))}`),
	h("ul.findings", changed.map((one) => h("li", `${one.package}: ${one.from} → ${one.to}`)),
		added.map((name) => h("li", `new: ${name}`)), removed.map((name) => h("li", `gone: ${name}`)))];

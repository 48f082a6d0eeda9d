import { h } from "./dom.js";

export const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" }).format;
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format;

/** Day and time; of today the time alone. @type {Moment} */
export const moment = (ms, now) => (day(ms) === day(now) ? "" : `${day(ms)}, `) + clock(ms);

/** @type {[number, string][]} */
const UNITS = [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"]];

/** @param {number} ms */
export function span(ms) {
	if (!Number.isFinite(ms)) return "–";
	if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
	if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
	const at = UNITS.findIndex(([size]) => ms >= size);
	const [size, name] = UNITS[at];
	const [small, smaller] = UNITS[at + 1] ?? UNITS[at];
	const rest = Math.floor((ms % size) / small);
	return `${Math.floor(ms / size)} ${name}${rest ? ` ${rest} ${smaller}` : ""}`;
}

/** @type {Moment} */
export const ago = (ms, now) => (now - ms < 5000 ? "just now" : `${span(now - ms)} ago`);

/** @param {Duration} duration */
export const lasting = ({ secs, nanos }) => span(secs * 1000 + nanos / 1e6);

/** @param {number} bytes */
export function size(bytes) {
	const at = bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10);
	return `${(bytes / 1024 ** at).toFixed(at ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][at]}`;
}

/** `user_path` as "user path". @param {string} word */
export const plain = (word) => word.replaceAll("_", " ");

/** @param {number} generation */
export const numbered = (generation) => String(generation).padStart(4, "0");

/** @type {Naming} */
export const named = (installed) => installed
	? [h("span.version", installed.release.version), ` (generation ${numbered(installed.generation)})`] : "nothing";

/** @param {Release} [release] */
export const added = (release) => release?.plugins?.length
	? ` with ${release.plugins.map((plugin) => `${plugin.package} ${plugin.version}`).join(", ")}` : "";

/** @param {Run} run */
export const isOpen = (run) => run.runId !== null && run.ended === null;

/** @type {HasFailed} */
export const hasFailed = (run, step) =>
	run.causes.some(({ act, fault }) => act === step.name && step.outcome?.startsWith(`${fault.code}:`));

/** @type {As} */
const as = (tone, word) => ({ tone, word });

/** How a run ended, or stands. Green is for one status alone. @param {Run} run */
export function outcome(run) {
	if (run.runId === null) return as("idle", "never run");
	if (isOpen(run)) {
		if (run.phase === "parked") return as("idle", "waits for start");
		if (run.awaits) return as("busy", run.awaits.plan ? "waits for approval" : "waits for its window");
		return as("busy", run.phase.startsWith("rolling") ? "going back" : "under way");
	}
	switch (run.status) {
		case "package_updated_restart_verified":
			return run.revertedBy ? as("warn", "verified, then reverted") : as("good", "verified");
		case "package_updated_restart_scheduled":
			return as("busy", "not verified yet");
		case "package_update_failed":
			return as("warn", run.causes[0]?.fault.code === "cancelled" ? "cancelled" : "failed, not switched");
		case "package_updated_restart_failed":
			if (run.resolution === "old_verified") return as("warn", "failed, reverted");
			if (run.resolution === "accepted_unverified") return as("warn", "accepted, unverified");
			return as("bad", "restart failed");
		default:
			return run.ok ? as("idle", "already current") : as("bad", "not proven");
	}
}

/** How long clients were not served. @param {Run} run */
export const unserved = ({ downtimeMs, resolution }) =>
	downtimeMs !== null ? span(downtimeMs) : resolution === "maintenance" ? "until resolved" : "–";

/** @param {View} view */
export const troubled = ({ trouble, alarm }) => trouble ?? alarm?.fault.detail;

/** @param {View} view @param {boolean} live */
export function standing(view, live) {
	const { report: run, current, orders } = view;
	const serves = run.serving.posture === "serve" && run.serving.instance !== null;
	if (!live) return as("lost", "not connected");
	if (run.standing === "maintenance") return as("bad", "maintenance");
	if (troubled(view)) return as("bad", serves ? "serving, in trouble" : "in trouble");
	const last = outcome(run);
	if (isOpen(run)) return last;
	if (!serves && orders.start === null) return as("idle", "stopped");
	if (!serves) return current ? as("warn", "not serving yet") : as("idle", "nothing installed");
	if (last.tone !== "good") return as(last.tone === "idle" ? "idle" : "warn", `serving; ${last.word}`);
	// What was verified is what serves, or it says nothing about it.
	return run.serving.generation === run.target?.generation ? last : as("idle", "serving");
}

/** @param {Mark} mark */
export const chip = ({ tone, word }) => h("span", { class: `chip ${tone}` }, sign(tone), word);

/** @param {Mark["tone"]} tone */
export const sign = (tone) =>
	h("span.sign", { "aria-hidden": "true" }, { good: "✓", warn: "↺", bad: "!", busy: "◐", idle: "–", lost: "?" }[tone]);

/** @param {Run} run */
export const undertaking = (run) => `${{
	update: "Update to", rollback: "Rollback to", auto_revert: "Automatic revert to", tree_changed: "New sealing of", accept: "Acceptance of",
}[run.trigger ?? "update"]} ${run.version ?? "…"}`;

// What the daemon tells (docs/wire.md), and what the page knows of it; names for all its files. Read by tsc alone. A test
// compares the fields with what a daemon really sends.

type Duration = { secs: number; nanos: number };
type Release = { package: string; version: string; digest: string; plugins?: { package: string; version: string; digest: string }[] };
type Installed = { generation: number; release: Release };
type Instance = { pid: number; startTime: number; bootId: string };
type Fault = { code: string; detail: string };
type Status =
  | "package_update_failed" | "package_updated_restart_scheduled"
  | "package_updated_restart_failed" | "package_updated_restart_verified";
type Resolution = "none" | "old_verified" | "old_unverified" | "accepted_unverified" | "maintenance";
type Reading = "holds" | "not_yet" | "contradicts" | "missing" | "not_applicable" | "warns";
type Fact = {
  name: string; expected: string; observed: string; reading: Reading; at: number | null; source: string;
};
type Step = {
  name: string; direction: "forward" | "back"; started: number; ended: number | null; tookMs: number | null;
  outcome: string | null; beganBootMs: number; copied: number | null;
};
type Finding = { level: "note" | "warn" | "block"; kind: string; text: string; advice: string | null };

interface Run {
  service: string;
  runId: string | null;
  trigger: "update" | "rollback" | "auto_revert" | "tree_changed" | "accept" | null;
  actor: string | null;
  origin: Fault | null;
  phase: string;
  standing: string;
  status: Status | null;
  ok: boolean;
  resolution: Resolution;
  sentence: string;
  condition: string;
  facts: Fact[];
  steps: Step[];
  findings: Finding[];
  before: Installed | null;
  target: Installed | null;
  version: string | null;
  serving: { version: string | null; instance: Instance | null; generation: number | null; posture: string; waived: boolean };
  downtimeMs: number | null;
  copied: { served: number; unserved: number };
  causes: { act: string; fault: Fault }[];
  writes: "kept" | "given_up";
  recovery: string[];
  next: string | null;
  started: number | null;
  ended: number | null;
  revertedBy: string | null;
  notices: { about: { event: string }; deliveries: { target: { name: string }; outcome: { outcome: string } | null }[] }[];
  awaits: { plan: string | null; windows: string[]; commands: string[] } | null;
}

interface Policy {
  soak: Duration; watch: Duration; hold: Duration; drain: Duration; stopGrace: Duration; startDeadline: Duration;
  rollback: "auto" | "never"; release: "after_prove" | "after_soak"; restoreAfterRelease: "refused" | "allowed";
  clearance: { approve: "never" | "always"; windows: object[]; limit: Duration };
}

interface View {
  service: string;
  report: Run;
  current: Installed | null;
  progress: { ticket: { run: string; act: string }; doing: string; done: number; total: number | null; unit: "bytes" | "count" } | null;
  front: {
    posture: "serve" | "hold" | "maintain"; expired: boolean; held: number; in_flight: number; websockets: number; longest_wait_ms: number;
  } | null;
  process: Instance | null;
  since: number | null;
  stopped: boolean;
  trouble: string | null;
  alarm: { fault: Fault } | null;
  tellings: { target: { name: string }; owed: number; trial: { tries: number; why: string } | null; givenUp: string | null }[];
  available: {
    version: string; channel: string; seenAt: number; published: string | null; homepage: string | null; notes: string | null;
  } | null;
  waiting: { opensAt: number | null; givesUpAt: number | null } | null;
  channel: string;
  settings: { strategy: "stop-start" | "signal"; class: "none" | "neutral" | "migrated"; intake: string; policy: Policy };
  orders: Record<string, string | null>;
  limitMs: number | null;
  address: string | null;
  listen: string[];
  seq: number;
}

interface Plan {
  service: string;
  before: Installed | null;
  target: Installed | null;
  alreadyCurrent: boolean;
  acts: string[];
  strategy: string;
  data: "none" | "neutral" | "migrated";
  profile: string;
  space: string;
  findings: Finding[];
  notes: string | null;
}

type Sealed = {
  generation: number; release: Release; published: string | null; createdAt: string; files: number; bytes: number;
  notes: string | null;
};
type Generations = { current: number | null; generations: Sealed[] };
type Tail = { lines: string[]; tripped: number[]; generation: number | null };

interface Difference {
  from: number; to: number; added: string[]; removed: string[]; changed: { package: string; from: string; to: string }[];
  files: number; bytes: number;
}

/** What became of something that was asked for. */
type Asked<T> = { state: "asked" } | { state: "told"; value: T } | { state: "failed"; code: string; why: string };

/** What tells a person how something stands: never the colour alone. */
type Mark = { tone: "good" | "warn" | "bad" | "busy" | "idle" | "lost"; word: string };

type Route = { service: string | null; run: string | null };

type OrderWord =
  | "approve" | "hold" | "update" | "rollback" | "start" | "stop" | "restart" | "cancel" | "retry" | "recover_rollback" | "accept";

/** An order that somebody is about to give. */
interface Draft {
  word: OrderWord;
  service: string;
  generation: number | null;
  version: string;
  data: "keep" | "restore";
  /** What was shown when the dialog was opened; of the run where the order is about it. */
  expected: { generation?: number; version?: string; run: string | null };
  /** The plan that was shown when the dialog was opened. */
  approves: string | null;
  hold: boolean;
  plan: Asked<Plan> | null;
  sent: boolean;
  /** Without a code it is not known whether the order was taken. */
  refusal: { code: string; why: string } | null;
}

/** All that the page shows is a function of this. */
interface Model {
  stage: "starting" | "out" | "in";
  notice: string;
  busy: boolean;
  link: { live: boolean; since: number };
  now: number;
  views: Map<string, View>;
  broken: Record<string, string>;
  route: Route;
  runs: Map<string, Asked<{ runs: Run[] }>>;
  generations: Map<string, Asked<Generations>>;
  logs: Map<string, Asked<Tail>>;
  differences: Map<string, Asked<Difference>>;
  logOpen: boolean;
  logOf: number;
  looks: Map<string, Asked<{ available: unknown }>>;
  draft: Draft | null;
}

/** What a person can do. */
interface Deeds {
  login(token: string): void;
  logout(): void;
  draft(service: string, word: OrderWord, generation?: number | null, version?: string): void;
  revise(change: Partial<Draft>): void;
  plan(): void;
  give(): void;
  close(): void;
  look(service: string): void;
  compare(service: string, generation: number): void;
  openLog(open: boolean): void;
  chooseLog(instance: number): void;
}

/** Who hears what the daemon tells. */
interface Hearer {
  all(views: View[], broken: Record<string, string>, now: number): void;
  view(view: View): void;
  lost(): void;
  out(): void;
  isOver(): boolean;
}

/** Attributes of an element, and what it does when something happens to it. */
interface Props { [heard: `on${string}`]: (event: any) => void; [name: string]: any }
/** An element that shall be. */
interface Described { tag: string; props: Record<string, any>; kids: (Described | string)[] }
type Kid = Described | string | number | null | undefined | false | Kid[];

type Laid = Described | string;
/** An element with what was last laid over it, and what it listens to. */
type Known = Element & { told?: Record<string, any>; heard?: Set<string> };

/** The types of functions that are too long to stand beside them. */
/** An element: its tag, with classes after a dot, its attributes if it has any, and what is in it. */
type Describe = (name: string, ...rest: (Props | Kid)[]) => Described;
type Button = (label: Kid, deed: (() => void) | null, more?: Props) => Described;
/** A part of a page with a heading. */
type Section = (id: string, title: Kid, ...kids: Kid[]) => Described;
/** A name and what it is, in a list of such. */
type Row = (name: string, ...told: Kid[]) => Described;
/** What must be heard at once, and what kind of thing that is. */
type Urgent = (tone: Mark["tone"], said: string, kind?: string) => Described;
/** By its columns and their classes. */
type Table = (label: string, columns: Record<string, string>, rows: [Props, ...Kid[]][]) => Described;
type Amount = (told: { unit: "bytes" | "count" }, number: number) => string;
type Call = (method: string, params: object) => Promise<any>;
type Ask = (path: string, init?: RequestInit) => Promise<Response>;
type Flat = (kids: any[]) => Laid[];
/** Makes the children of an element what is described. */
type Lay = (parent: Element, kids: Laid[]) => void;
type Fits = (node: ChildNode, kid: Laid) => boolean;
type Made = (parent: Element, kid: Laid) => ChildNode;
type Dress = (element: Known, props: Props) => void;
type As = (tone: Mark["tone"], word: string) => Mark;
type Naming = (installed: Installed | null) => Kid;
type HasFailed = (run: Run, step: Step) => boolean;
type Timeline = (run: Run, now: number) => Described;
/** Whether the daemon would take the order now. */
type Possible = (view: View, word: OrderWord) => boolean;
/** What an order goes by; the daemon refuses it if that is another by then. */
type Expects = (view: View, word: OrderWord) => Draft["expected"];
/** Whether an order is still about what was shown. */
type FitsNow = (view: View | undefined, draft: Draft) => boolean;
/** An order as a method and its parameters. */
type AsCall = (draft: Draft) => [string, object];
type Consequences = (view: View, draft: Draft) => string[];
type OrderDialog = (model: Model, deeds: Deeds) => Described | null;
type ServicePage = (model: Model, name: string, deeds: Deeds) => Described;
type RunPage = (model: Model, service: string, id: string) => Described;
type Choice = (data: "keep" | "restore", label: string) => Described;
type Span = [from: number, to: number];
/** When the front did not serve, as the steps tell: from the cut to the release, and again on the way back. */
type Outages = (run: Run, end: number) => Span[];
type Bar = (...span: Span) => { x: number; width: number };
/** A moment in words, seen from now (ms of Unix time). */
type Moment = (ms: number, now: number) => string;
/** Something about a run; with the service's view, if that is about this run. */
type OfRun<T> = (model: Model, run: Run, view: View | null) => T;
type WhenTold = <T>(asked: Asked<T> | undefined, show: (value: T) => Kid) => Kid;
type Settle = <T>(promise: Promise<T>) => Promise<Exclude<Asked<T>, { state: "asked" }>>;
/** Asks, and shows what is told. */
type Learn = (into: Map<string, any>, service: string, method: string, params: object) => Promise<void>;

/** Parts of the page: functions from what is known to what is shown. */
type Page = (model: Model, deeds: Deeds) => Described;
type Part = (model: Model, view: View, deeds: Deeds) => Kid;

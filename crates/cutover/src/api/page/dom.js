// From values to elements. A description is laid over what is there: elements that go on are kept, and with them focus and
// what somebody types. Every text becomes a text node; there is no way to markup.

const SVG = "http://www.w3.org/2000/svg";

/** @type {Describe} */
export function h(name, ...rest) {
	const [tag, of] = name.split(".");
	const [first] = rest;
	const given = first && typeof first === "object" && !Array.isArray(first) && !("tag" in first);
	const props = Object.assign(of ? { class: of } : {}, given && rest.shift());
	return { tag, props, kids: flat(rest) };
}

/** @type {Flat} */
const flat = (kids) => kids.flatMap((kid) =>
	Array.isArray(kid) ? flat(kid) : kid == null || kid === false ? [] : [typeof kid === "object" ? kid : String(kid)]);

/** One that is off keeps the focus that it has. @type {Button} */
export const button = (label, deed, { off = false, ...more } = {}) =>
	h("button", { type: deed ? "button" : "submit", onclick: () => off || deed?.(), "aria-disabled": off && "true", ...more }, label);

/** A page's heading, which gets the focus. @param {...Kid} kids */
export const title = (...kids) => h("h1", { tabindex: -1 }, kids);

/** @type {Section} */
export const section = (id, title, ...kids) =>
	h("section.sheet", { key: id, "aria-labelledby": id }, h("h2", { id }, title), kids);

/** @type {Row} */
export const row = (name, ...told) => h("div", h("dt", name), h("dd", told));

/** @type {Urgent} */
export const urgent = (tone, said, kind) => h(`p.banner ${tone}`, { role: "alert" }, kind && h("strong", kind), said);

/** In a hand each cell has a line of its own, with its column's name. @type {Table} */
export const table = (label, columns, rows) => {
	const names = Object.keys(columns);
	const cells = (/** @type {Kid[]} */ [first, ...others]) => [h("th", { scope: "row" }, first),
		others.map((cell, at) => h("td", { class: columns[names[at + 1]], "data-of": names[at + 1] }, cell))];
	return h("div.scroll", { tabindex: 0, role: "region", "aria-label": label },
		h("table", h("thead", h("tr", names.map((name) => h("th", { scope: "col" }, name)))),
			h("tbody", rows.map(([props, ...kids]) => h("tr", props, cells(kids))))));
};

/** @type {Lay} */
export function lay(parent, kids) {
	const left = new Set(parent.childNodes);
	const nodes = kids.map((kid) => {
		const found = [...left].find((node) => fits(node, kid));
		if (found) left.delete(found);
		return found ?? made(parent, kid);
	});
	// What goes, goes first: what stays need not be moved then, and keeps the focus.
	for (const node of left) node.remove();
	nodes.forEach((node, at) => {
		const kid = kids[at];
		if (parent.childNodes[at] !== node) parent.insertBefore(node, parent.childNodes[at] ?? null);
		if (typeof kid === "string") {
			if (node.nodeValue !== kid) node.nodeValue = kid;
			return;
		}
		dress(/** @type {Known} */ (node), kid.props);
		// A custom element makes its own children.
		if (!kid.tag.includes("-")) lay(/** @type {Element} */ (node), kid.kids);
	});
}

/** @type {Fits} */
const fits = (node, kid) => typeof kid === "string" ? node.nodeType === Node.TEXT_NODE
	: node.nodeName.toLowerCase() === kid.tag && /** @type {Known} */ (node).told?.key === kid.props.key;

/** @type {Made} */
function made(parent, kid) {
	if (typeof kid === "string") return document.createTextNode(kid);
	const drawn = kid.tag === "svg" || parent.namespaceURI === SVG;
	return drawn ? document.createElementNS(SVG, kid.tag) : document.createElement(kid.tag);
}

/** @type {Dress} */
function dress(element, props) {
	const before = element.told ?? {};
	for (const name in before) if (!(name in props)) element.removeAttribute(name);
	for (const [name, value] of Object.entries(props)) {
		if (name === "key") continue;
		if (name.startsWith("on")) {
			// One listener for ever; which deed it does is looked up when it happens.
			const heard = (element.heard ??= new Set());
			if (!heard.has(name)) element.addEventListener(name.slice(2), (event) => element.told?.[name]?.(event));
			heard.add(name);
		} else if (value === false || value == null) {
			element.removeAttribute(name);
		} else if (before[name] !== value) {
			element.setAttribute(name, value === true ? "" : value);
		}
	}
	element.told = props;
}

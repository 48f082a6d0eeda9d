import { button, h, section, title, urgent } from "./dom.js";

/** @type {Page} */
export function loginPage(model, deeds) {
	return h("main.login",
		title("Log in"),
		model.notice && urgent("warn", model.notice),
		section("by-command", "With a command",
			h("p", "On cutover’s machine, as the user that it runs as:"),
			h("copy-line", { command: "cutover open" }),
			h("p.quiet", "It prints an address that opens this page once, within two minutes.")),
		section("by-token", "With a token",
			h("form", { onsubmit: (event) => {
				event.preventDefault();
				const { token } = event.target.elements;
				if (!model.busy) deeds.login(token.value);
				token.value = "";
			} },
				h("label", { for: "token" }, "A one-time token, or what the file “token” in cutover’s state directory holds"),
				h("input", { id: "token", type: "password", autocomplete: "off", required: true }),
				button("Log in", null, { class: "main", off: model.busy }))));
}

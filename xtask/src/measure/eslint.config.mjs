// The rules that ask whether an import finds its file and its names.
import { createNodeResolver, importX } from "eslint-plugin-import-x";

export default [
  {
    files: ["**/*.js", "**/*.mjs", "**/*.cjs"],
    languageOptions: { ecmaVersion: "latest", sourceType: "module" },
    plugins: { "import-x": importX },
    settings: { "import-x/resolver-next": [createNodeResolver()] },
    rules: { "import-x/no-unresolved": "error", "import-x/named": "error" },
  },
  { files: ["**/*.cjs"], languageOptions: { sourceType: "commonjs" } },
];

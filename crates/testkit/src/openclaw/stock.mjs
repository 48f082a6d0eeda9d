// A program of somebody who uses the gateway through the public client: presses the button, follows the run to its end,
// and says what then serves. One line of JSON per thing that it was told. Arguments: the client's module, the gateway's
// address, the token, a file for the identity.
const [module, url, token, deviceIdentityPath] = process.argv.slice(1);
const { OpenClawClient } = await import(module);

const tell = (told) => console.log(JSON.stringify(told));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const client = new OpenClawClient({ url, token, deviceIdentityPath, scopes: ["operator.admin", "operator.read"] });
client.on("error", () => {});
client.on("connected", (hello) => tell({ connected: hello.server.version }));
client.on("disconnected", () => tell({ disconnected: true }));
client.on("event", (event) => event.event === "update.run.changed" && tell({ changed: event.payload }));

await client.connect();
const pressed = (await client.request("update.run", {})).payload;
tell({ pressed });
// The client comes back by itself; what it asks meanwhile is refused, and asked again.
for (let run = null; run?.finishedAtMs == null; ) {
  await pause(200);
  try {
    run = (await client.request("update.runs.get", { runId: pressed.runId })).payload.run;
    if (run?.finishedAtMs != null) tell({ run });
  } catch (error) {
    tell({ refused: error.message });
  }
}
tell({ status: (await client.request("update.status", {})).payload });
await client.disconnect();
process.exit(0);

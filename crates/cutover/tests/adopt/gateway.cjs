// What a gateway's preset asks of it, and no more: health, readiness, a page, a hello over a WebSocket that needs the token, and a
// validator. It finds its state and its configuration as a gateway does, and tells them to whom it grants `operator.admin`; with
// SAYS_STATE it tells another state, with MUTE nothing. With WORD it is asked for by that. Its page is at PAGE, `/` if that is not set,
// and nowhere if it is empty; with SAYS_OF_PAGE it answers that status there, or with `nothing` hangs up. It runs the plugins in its state whose own link to their host leads to it. Files in its state directory tell a copy of
// it to misbehave: `broken` (it ends at once), `slow` (it listens, or ends, later), `deaf` (it runs no plugin), `lost` (it tells another state); and each of them,
// copy or not, to write a title over its command line: `titled`.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const words = process.argv.slice(2);
if (words[0] === 'config') {
  console.log(JSON.stringify({ valid: true }));
  process.exit(0);
}
const version = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'package.json'), 'utf8')).version;
const said = (name) => words[words.indexOf(name) + 1];
const port = Number(said('--port'));
const token = process.env.OPENCLAW_GATEWAY_TOKEN || said('--token');
const home = path.resolve((process.env.OPENCLAW_HOME || process.env.HOME).replace(/^~(?=$|\/)/, process.env.HOME));
const profile = words.includes('--profile') ? `-${said('--profile')}` : '';
const state = process.env.OPENCLAW_STATE_DIR || path.join(home, `.openclaw${profile}`);
const configuration = path.resolve(process.env.OPENCLAW_CONFIG_PATH || path.join(state, 'openclaw.json'));
// A line for each start: outside of the state, which is copied and taken back.
if (process.env.STARTS) {
  try {
    fs.appendFileSync(process.env.STARTS, __dirname.includes('/generations/') ? 'copy\n' : 'old\n');
  } catch {
    // Another account's, or in a sandbox.
  }
}
const told = (name) => __dirname.includes('/generations/') && fs.existsSync(path.join(state, name));
if (told('broken')) setTimeout(() => process.exit(1), told('slow') ? 1500 : 0);
if (fs.existsSync(path.join(state, 'titled'))) process.title = 'openclaw-gateway';

function listed(directory) {
  try {
    return fs.readdirSync(directory);
  } catch {
    return [];
  }
}

function plugins() {
  const projects = path.join(state, 'npm/projects');
  const loaded = [];
  for (const project of told('deaf') ? [] : listed(projects)) {
    const file = path.join(projects, project, 'package.json');
    for (const name of Object.keys(JSON.parse(fs.readFileSync(file, 'utf8')).dependencies)) {
      const plugin = path.join(projects, project, 'node_modules', name);
      try {
        const host = fs.realpathSync(path.join(plugin, 'node_modules/openclaw'));
        if (host !== path.dirname(__dirname)) continue;
        require(fs.realpathSync(plugin));
        loaded.push(JSON.parse(fs.readFileSync(path.join(plugin, 'openclaw.plugin.json'), 'utf8')).id);
      } catch (error) {
        console.error(String(error));
      }
    }
  }
  return loaded;
}

function frame(value) {
  const text = Buffer.from(JSON.stringify(value));
  const head = text.length < 126 ? Buffer.from([0x81, text.length]) : Buffer.from([0x81, 126, text.length >> 8, text.length & 255]);
  return Buffer.concat([head, text]);
}

function unmasked(bytes) {
  let length = bytes[1] & 127;
  let at = 2;
  if (length === 126) {
    length = bytes.readUInt16BE(2);
    at = 4;
  }
  if (bytes.length < at + 4 + length) return null;
  const mask = bytes.subarray(at, at + 4);
  return Buffer.from(bytes.subarray(at + 4, at + 4 + length).map((byte, i) => byte ^ mask[i % 4])).toString();
}

// One that is asked to takes a TERM for a restart in the same process.
function isAskedToRestart() {
  try {
    return JSON.parse(fs.readFileSync(path.join(state, 'gateway-restart-intent.json'), 'utf8')).pid === process.pid;
  } catch {
    return false;
  }
}

const server = http.createServer((request, response) => {
  // Whoever does not know the word is not told that it lives, and does not see its page.
  if (process.env.WORD && request.url !== '/readyz' && request.headers['x-word'] !== process.env.WORD) {
    return response.writeHead(403).end();
  }
  if (request.url === (process.env.PAGE ?? '/')) {
    const instead = process.env.SAYS_OF_PAGE;
    if (instead === 'nothing') return request.socket.destroy();
    if (instead) return response.writeHead(Number(instead), { location: '/elsewhere/' }).end();
    response.writeHead(200, { 'content-type': 'text/html' });
    return response.end('<!doctype html><title>Control</title>');
  }
  const known = ['/healthz', '/readyz'].includes(request.url);
  response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
  return response.end(JSON.stringify({ ok: known, version, cwd: process.cwd(), argv: process.argv.slice(2), kept: process.env.KEPT, state, configuration }));
});
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = crypto.createHash('sha1').update(key).digest('base64');
  socket.on('error', () => {});
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.write(frame({ type: 'event', event: 'connect.challenge', payload: { nonce: 'n' } }));
  let pending = Buffer.alloc(0);
  socket.on('data', (bytes) => {
    pending = Buffer.concat([pending, bytes]);
    if ((pending[0] & 15) !== 1) return socket.end();
    const text = unmasked(pending);
    if (text === null) return undefined;
    pending = Buffer.alloc(0);
    const { id, params } = JSON.parse(text);
    if (params?.auth?.token !== token) {
      return socket.end(frame({ type: 'res', id, ok: false, error: { code: 'AUTH_TOKEN_MISMATCH' } }));
    }
    const snapshot = { health: { plugins: { loaded: plugins() } } };
    if (params.scopes?.includes('operator.admin') && !process.env.MUTE) {
      snapshot.stateDir = told('lost') ? home : process.env.SAYS_STATE || state;
      snapshot.configPath = configuration;
    }
    return socket.write(frame({ type: 'res', id, ok: true, payload: { type: 'hello-ok', protocol: 3, server: { version }, snapshot } }));
  });
});
process.on('SIGTERM', () => {
  if (!isAskedToRestart()) process.exit(0);
});
if (!told('broken')) setTimeout(() => server.listen(port, '127.0.0.1'), told('slow') ? 1500 : 0);

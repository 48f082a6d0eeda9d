//! One tab: evaluated, pressed, looked at. What its page complains of is kept.

use super::LOOK;
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Where the middle of the one element is that a selector names, if a press there reaches it.
const PLACE: &str = include_str!("place.js");
/// A picture of a long page.
const MESSAGE_MAX: usize = 256 << 20;

/// Which colours a person prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// One page of a [`super::Browser`].
#[derive(Debug)]
pub struct Tab {
    socket: WebSocketStream<TcpStream>,
    commands: u64,
    limit: Duration,
    complaints: Vec<String>,
}

impl Tab {
    pub(super) async fn connect(devtools: SocketAddr, path: &str, limit: Duration) -> anyhow::Result<Tab> {
        let opened = async {
            let stream = TcpStream::connect(devtools).await?;
            let request = format!("ws://{devtools}{path}").into_client_request()?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_MAX))
                .max_frame_size(Some(MESSAGE_MAX));
            anyhow::Ok(tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?.0)
        };
        let socket = timeout(limit, opened).await.context("too slow")?.context("open DevTools")?;
        Ok(Tab { socket, commands: 0, limit, complaints: Vec::new() })
    }

    /// Goes to an address; what the page does then is to be waited for with [`Tab::until`].
    ///
    /// # Errors
    /// If nothing can be loaded from there.
    pub async fn go(&mut self, url: &str) -> anyhow::Result<()> {
        let gone = self.command("Page.navigate", json!({"url": url})).await?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        Ok(())
    }

    /// What an expression of JavaScript comes to in the page, as JSON.
    ///
    /// # Errors
    /// If it throws, or the browser does not answer in time.
    pub async fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let came = self.command("Runtime.evaluate", asked).await?;
        let thrown = &came["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {}", thrown["exception"]["description"]);
        Ok(came["result"]["value"].clone())
    }

    /// Waits at most `limit` until an expression is neither null, false, zero nor empty, and tells what it is.
    ///
    /// # Errors
    /// If it does not become so, or throws; the page's text is told then.
    pub async fn until(&mut self, what: &str, expression: &str, limit: Duration) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let value = match self.evaluate(expression).await {
                // The page was left while it was asked: the next one is.
                Err(error) if format!("{error:#}").contains("navigated or closed") => Value::Null,
                other => other?,
            };
            if !is_nothing(&value) {
                return Ok(value);
            }
            if begun.elapsed() > limit {
                bail!("{what}: not within {limit:?}. The page says: {}", self.text().await?);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a person reads on the page.
    ///
    /// # Errors
    /// If the browser does not answer in time.
    pub async fn text(&mut self) -> anyhow::Result<String> {
        let text = self.evaluate("document.body?.innerText ?? ''").await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Presses the one enabled element that a selector names, with the mouse, where a person would.
    ///
    /// # Errors
    /// If there is none or more than one, or it is disabled, or something lies over it.
    pub async fn press(&mut self, selector: &str) -> anyhow::Result<()> {
        let place = self.evaluate(&format!("({PLACE})({})", json!(selector))).await?;
        let (Some(x), Some(y)) = (place["x"].as_f64(), place["y"].as_f64()) else {
            bail!("{selector} cannot be pressed: {place}");
        };
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
            self.command("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// The same, once it can be pressed, for which it has `limit`: a page that is still being drawn lies over itself.
    ///
    /// # Errors
    /// As [`Tab::press`], still.
    pub async fn press_within(&mut self, limit: Duration, selector: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match self.press(selector).await {
                Err(_) if begun.elapsed() < limit => tokio::time::sleep(LOOK).await,
                pressed => return pressed,
            }
        }
    }

    /// Writes what is seen of the page to a file, as PNG.
    ///
    /// # Errors
    /// If there is no picture in time, or the file cannot be written.
    pub async fn picture(&mut self, file: &Path) -> anyhow::Result<()> {
        self.taken(file, json!({"format": "png"})).await
    }

    /// Writes the whole page to a file, as PNG, also what one would have to scroll to.
    ///
    /// # Errors
    /// As [`Tab::picture`].
    pub async fn whole_picture(&mut self, file: &Path) -> anyhow::Result<()> {
        let extent = self.extent().await?;
        self.taken(file, json!({"format": "png", "captureBeyondViewport": true, "clip": extent})).await
    }

    async fn taken(&mut self, file: &Path, how: Value) -> anyhow::Result<()> {
        let taken = self.command("Page.captureScreenshot", how).await?;
        let data = BASE64.decode(taken["data"].as_str().context("a picture without data")?)?;
        std::fs::write(file, data).with_context(|| format!("write {}", file.display()))
    }

    async fn extent(&mut self) -> anyhow::Result<Value> {
        let metrics = self.command("Page.getLayoutMetrics", json!({})).await?;
        let size = &metrics["cssContentSize"];
        Ok(json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}))
    }

    /// Shows the page as on a screen of this width and height (in CSS pixels), to somebody who prefers `scheme`.
    ///
    /// # Errors
    /// If the browser does not answer in time.
    pub async fn screen(&mut self, width: u32, height: u32, scheme: Scheme) -> anyhow::Result<()> {
        let is_narrow = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_narrow});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await?;
        let value = if scheme == Scheme::Dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.command("Emulation.setEmulatedMedia", media).await.map(drop)
    }

    /// Lays the tab over the others of its browser: keys go to what is seen.
    ///
    /// # Errors
    /// If the browser does not answer in time.
    pub async fn show(&mut self) -> anyhow::Result<()> {
        self.command("Page.bringToFront", json!({})).await.map(drop)
    }

    /// Types a text into what has the focus.
    ///
    /// # Errors
    /// If the browser does not answer in time.
    pub async fn enter(&mut self, text: &str) -> anyhow::Result<()> {
        self.command("Input.insertText", json!({"text": text})).await.map(drop)
    }

    /// Presses a key that writes nothing, by its name (`Tab`, `Enter`, `Escape`).
    ///
    /// # Errors
    /// If the browser does not answer in time, or the key is not one of these.
    pub async fn key(&mut self, name: &str) -> anyhow::Result<()> {
        let (code, text) = match name {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            _ => bail!("there is no key {name}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text});
            self.command("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// What was told as an error on the console so far, exceptions that nobody caught among it, in order.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// One command of the protocol and its result; events that come meanwhile are kept if they are complaints.
    pub(super) async fn command(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.commands += 1;
        let (id, limit) = (self.commands, self.limit);
        let said = json!({"id": id, "method": method, "params": params}).to_string();
        let answered = async {
            self.socket.send(Message::text(said)).await?;
            loop {
                let Message::Text(text) = self.socket.next().await.context("the browser is gone")?? else {
                    continue;
                };
                let message: Value = serde_json::from_str(&text)?;
                if message["id"] == id {
                    return anyhow::Ok(message);
                }
                self.complaints.extend(complaint(&message));
            }
        };
        let answer = timeout(limit, answered).await.with_context(|| format!("{method} is slow"))??;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }
}

/// What JavaScript would call false, and empty lists and objects.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_so) => !is_so,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            let said = details["exception"]["description"].as_str().or(details["text"].as_str());
            Some(format!("thrown: {}", said.unwrap_or_default()))
        }
        "Runtime.consoleAPICalled" if params["type"] == "error" => {
            let words = params["args"].as_array().into_iter().flatten().map(|word| {
                let text = word["description"].as_str().or(word["value"].as_str()).map(str::to_owned);
                text.unwrap_or_else(|| word["value"].to_string())
            });
            Some(format!("console: {}", words.collect::<Vec<_>>().join(" ")))
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            let entry = &params["entry"];
            let (text, url) = (entry["text"].as_str()?, entry["url"].as_str().unwrap_or_default());
            Some(format!("{}: {text} {url}", entry["source"].as_str().unwrap_or("log")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_errors_and_nothing_else() {
        let console = |kind: &str| {
            json!({"method": "Runtime.consoleAPICalled",
                   "params": {"type": kind, "args": [{"value": "no"}, {"description": "Error: x"}, {"value": 3}]}})
        };
        assert_eq!(complaint(&console("error")).as_deref(), Some("console: no Error: x 3"));
        assert_eq!(complaint(&console("log")), None);
        assert_eq!(complaint(&json!({"method": "Page.loadEventFired", "params": {}})), None);
        let thrown = json!({"method": "Runtime.exceptionThrown",
                            "params": {"exceptionDetails": {"text": "Uncaught"}}});
        assert_eq!(complaint(&thrown).as_deref(), Some("thrown: Uncaught"));
    }

    #[test]
    fn what_is_empty_is_waited_on() {
        for nothing in [json!(null), json!(false), json!(0), json!(""), json!([]), json!({})] {
            assert!(is_nothing(&nothing), "{nothing}");
        }
        for something in [json!(true), json!(0.5), json!("0"), json!([0]), json!({"a": null})] {
            assert!(!is_nothing(&something), "{something}");
        }
    }
}

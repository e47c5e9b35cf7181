//! Chromium without a screen, driven by WebDriver (W3C): as much of it as the tests of pages need.

use std::fmt;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait::{SOON, eventually, free_port};

/// How long a command may take, starting a browser among them.
const COMMAND: Duration = Duration::from_secs(60);
/// The window, in CSS pixels.
const WINDOW: &str = "--window-size=1280,900";

/// A browser with one window, and with nothing of any other: it ends with this.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    port: u16,
    /// `/session/ID`
    session: String,
    client: Client,
    /// Chromium's, for its profile and the log of chromedriver.
    dir: TempDir,
}

impl Browser {
    /// Starts a browser.
    ///
    /// # Panics
    /// If chromedriver or Chromium (packages chromium and chromium-driver) do not start.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("afcgi-browser")
            .tempdir()
            .expect("a temporary folder");
        // chromedriver leaves it behind when it is itself killed.
        let chromium = dir.path().join("chromium");
        let script = "#!/bin/sh\nexec setpriv --pdeathsig KILL -- /usr/bin/chromium \"$@\"\n";
        std::fs::write(&chromium, script).expect("a script");
        std::fs::set_permissions(&chromium, Permissions::from_mode(0o755)).expect("permissions");
        let port = free_port();
        let mut command = Command::new("/usr/bin/chromedriver");
        command.arg(format!("--port={port}"));
        let driver = Process::start("chromedriver", &command, &dir.path().join("log"));
        let client = Client::builder()
            .no_proxy()
            .timeout(COMMAND)
            .build()
            .expect("an HTTP client");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            client,
            dir,
        };
        eventually("chromedriver listens", SOON, || {
            browser.driver.assert_running();
            async move {
                let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                connected.map(drop).map_err(|error| error.to_string())
            }
        })
        .await;
        let profile = format!("--user-data-dir={}", browser.profile());
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", WINDOW, profile,
            ],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.command(Method::POST, "/session", &wanted).await;
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    fn profile(&self) -> String {
        self.dir.path().join("profile").display().to_string()
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// Runs a script, as the body of a function; what that returns.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
            .await
    }

    /// Waits until a script returns true.
    pub async fn wait(&self, script: &str) {
        eventually(script, SOON, || async {
            match self.run(script).await {
                Value::Bool(true) => Ok(()),
                other => Err(format!("{other}; console: {}", self.console().await)),
            }
        })
        .await;
    }

    /// Presses the primary button of the mouse at the first of these points of the window, in CSS pixels, moves to the others, and lets go.
    pub async fn drag(&self, points: &[(i64, i64)]) {
        let mut actions = Vec::new();
        for (index, (x, y)) in points.iter().enumerate() {
            actions.push(json!({ "type": "pointerMove", "duration": 30, "x": x, "y": y }));
            if index == 0 {
                actions.push(json!({ "type": "pointerDown", "button": 0 }));
            }
        }
        actions.push(json!({ "type": "pointerUp", "button": 0 }));
        let mouse = json!({ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" }, "actions": actions });
        self.post("/actions", &json!({ "actions": [mouse] })).await;
    }

    /// Presses and releases one key after the other: characters, or WebDriver's code points for the others.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|what| json!({ "type": what, "value": key.to_string() }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", &json!({ "actions": [keyboard] }))
            .await;
    }

    /// Says yes to the question that a page asks (`confirm`).
    pub async fn agree(&self) {
        let path = format!("{}/alert/text", self.session);
        eventually("the page asks", SOON, || async {
            let asked = self.try_command(Method::GET, &path, &Value::Null).await;
            asked.map(drop)
        })
        .await;
        self.post("/alert/accept", &json!({})).await;
    }

    /// What the window shows, as a PNG file.
    pub async fn screenshot(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.session);
        let text = self.command(Method::GET, &path, &Value::Null).await;
        BASE64_STANDARD
            .decode(text.as_str().expect("a screenshot"))
            .expect("base64")
    }

    /// What the page has logged, errors above all, since this was asked last: an empty list if all is well.
    pub async fn console(&self) -> Value {
        self.post("/se/log", &json!({ "type": "browser" })).await
    }

    /// Sets a media feature, such as `prefers-color-scheme`.
    pub async fn prefer(&self, feature: &str, value: &str) {
        let media = json!({ "features": [{ "name": feature, "value": value }] });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": media });
        self.post("/goog/cdp/execute", &command).await;
    }

    /// Makes the window so large, in CSS pixels, for what is shown from now on.
    pub async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size });
        self.post("/goog/cdp/execute", &command).await;
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        self.command(Method::POST, &path, body).await
    }

    async fn command(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.try_command(method, path, body).await;
        answer.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    async fn try_command(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        fn text(error: impl fmt::Debug) -> String {
            format!("{error:?}")
        }
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.client.request(method, url);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.map_err(text)?;
        let well = response.status().is_success();
        let bytes = response.bytes().await.map_err(text)?;
        let mut answer: Value = serde_json::from_slice(&bytes).map_err(text)?;
        let value = answer["value"].take();
        if well {
            Ok(value)
        } else {
            Err(value.to_string())
        }
    }

    /// Asks for the end of the session, which ends Chromium.
    fn quit(&self) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(SOON))?;
        let session = &self.session;
        write!(
            socket,
            "DELETE {session} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        )?;
        socket.read(&mut [0; 1024]).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of chromedriver:\n{}\n---", self.driver.log());
        }
        if let Err(error) = self.quit() {
            eprintln!("the browser cannot be told to end: {error}");
        }
        self.driver.stop();
        // Whatever is left of it has its profile on the command line, which is nobody else's.
        for process in processes_with(&self.profile()) {
            _ = kill_process(process, Signal::KILL);
        }
    }
}

fn processes_with(text: &str) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let has_text = |process: &Path| {
        std::fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    entries
        .flatten()
        .filter(|entry| has_text(&entry.path()))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

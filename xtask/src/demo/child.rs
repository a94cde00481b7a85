//! Processes that serve until the demo ends, and those that finish.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long a server may take to be ready, in tenths of a second.
const PATIENCE: u32 = 600;

/// A server, with what it wrote.
pub(super) struct Serving {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    facts: Value,
}

impl Serving {
    /// Starts it and waits for the line that says it is ready.
    pub(super) fn start(command: &mut Command, ready: &str) -> Result<Self> {
        let name = format!("{command:?}");
        let mut child = command
            // The counterparts end when this end of the pipe does.
            .env("COUNTERPART_STDIN", "pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            follow(stdout, &log);
        }
        if let Some(stderr) = child.stderr.take() {
            follow(stderr, &log);
        }
        let mut serving = Self {
            child,
            log,
            facts: Value::Null,
        };
        for _ in 0..PATIENCE {
            let line = serving
                .lines()
                .into_iter()
                .find(|line| line.contains(ready));
            if let Some(line) = line {
                serving.facts = serde_json::from_str(&line).unwrap_or_default();
                return Ok(serving);
            }
            if let Some(status) = serving.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", serving.log_tail(30));
            }
            thread::sleep(Duration::from_millis(100));
        }
        serving.stop();
        bail!("{name} did not become ready:\n{}", serving.log_tail(30))
    }

    /// A text of its ready line; empty if there is none.
    pub(super) fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_default()
    }

    /// What it wrote so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same in one piece.
    pub(super) fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// The last lines.
    pub(super) fn log_tail(&self, count: usize) -> String {
        let lines = self.lines();
        lines
            .get(lines.len().saturating_sub(count)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

fn follow(source: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    });
}

/// Runs a command to its end; gives what it printed.
pub(super) fn finish(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A verb that takes no input may have ended already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// This port if it is free, else any that is.
pub(super) fn port(wanted: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", wanted))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.port())
}

/// `GET` on this machine, without a library: HTTP/1.0, so that the body is
/// simply what follows the headers.
pub(super) fn get(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("only plain HTTP")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).with_context(|| format!("cannot reach {host}"))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{url} gave no answer"))?;
    ensure!(
        head.split(' ').nth(1) == Some("200"),
        "{url}: {}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.to_owned())
}

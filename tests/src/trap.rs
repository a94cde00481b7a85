//! A server that nobody should have sent anything to, or that says of itself
//! what a test wants: every request it gets is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Caught {
    /// GET, POST …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// All of it, as it came over the wire.
    pub raw: String,
}

#[derive(Clone)]
struct Canned {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Default)]
struct State {
    caught: Vec<Caught>,
    /// By method (`*` for any) and path.
    answers: HashMap<(String, String), Canned>,
}

/// The server; it ends with this value.
pub struct Trap {
    /// Its origin, without a slash at the end.
    pub url: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Trap {
    /// Listens on loopback; answers 404 until it is told otherwise.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that hangs up is no failure here.
                    let _ = serve(stream, &state).await;
                });
            }
        });
        Ok(Self { url, state, task })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address of it.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Answers this method (`*`: any) at this path so from now on.
    pub fn answers(
        &self,
        method: &str,
        path: &str,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let canned = Canned {
            status,
            headers,
            body: body.to_vec(),
        };
        let key = (method.to_owned(), path.to_owned());
        self.state().answers.insert(key, canned);
    }

    /// Answers with JSON at this path.
    pub fn json(&self, path: &str, body: &Value) {
        let headers = [("content-type", "application/json")];
        self.answers("*", path, 200, &headers, body.to_string().as_bytes());
    }

    /// Everything it was sent.
    pub fn caught(&self) -> Vec<Caught> {
        self.state().caught.clone()
    }

    /// What it was sent at this path.
    pub fn caught_at(&self, path: &str) -> Vec<Caught> {
        self.caught()
            .into_iter()
            .filter(|c| c.path == path)
            .collect()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Result<()> {
    let mut raw = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        raw.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if count == 0 || is_whole(&raw) || raw.len() > 1 << 20 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&raw).into_owned();
    let mut words = text.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let canned = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = &state.answers;
        let found = answers
            .get(&(method.clone(), path.clone()))
            .or_else(|| answers.get(&("*".to_owned(), path.clone())))
            .cloned();
        state.caught.push(Caught {
            method,
            path,
            raw: text,
        });
        found.unwrap_or(Canned {
            status: 404,
            headers: vec![("content-type".into(), "text/html".into())],
            body: b"<html>not here</html>".to_vec(),
        })
    };
    let mut head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        canned.status,
        canned.body.len()
    );
    for (name, value) in &canned.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&canned.body).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Whether head and body are there.
fn is_whole(raw: &[u8]) -> bool {
    let text = String::from_utf8_lossy(raw);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

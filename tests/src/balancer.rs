//! A load balancer in front of several hosts: all connections go to the one
//! that was chosen last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The address that the hosts are known by.
pub struct Balancer {
    /// Without a slash at the end.
    pub url: String,
    target: Arc<Mutex<String>>,
    chosen: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// Listens; nobody is behind it yet.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let target = Arc::new(Mutex::new(String::new()));
        let chosen = watch::Sender::new(());
        let (to, changes) = (Arc::clone(&target), chosen.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let address = to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let mut changes = changes.subscribe();
                tokio::spawn(async move {
                    let Ok(mut host) = TcpStream::connect(address).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut host) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            url,
            target,
            chosen,
            task,
        })
    }

    /// From now on everybody is sent there (`http://127.0.0.1:1234`);
    /// connections to another are closed, and their clients have a moment to
    /// learn of it.
    pub async fn send_to(&self, own_url: &str) {
        let address = own_url.trim_start_matches("http://").to_owned();
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = address;
        self.chosen.send_replace(());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

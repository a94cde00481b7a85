//! `countersign serve`: listen, answer, keep house, end cleanly.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::names::ProviderName;
use countersign_oauth::upkeep::Parties;
use countersign_presets::CatalogEvent;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::lanes::Lanes;
use crate::wiring::{App, StartError};

/// How long calls in flight may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(30);
/// How often what has expired is swept away, and what was counted is told.
const SWEEP: Duration = Duration::from_secs(60);
/// How often is looked for connections to be renewed, and how often while there
/// are more than are begun at once.
const UPKEEP: Duration = Duration::from_secs(2);
const UPKEEP_BUSY: Duration = Duration::from_millis(250);
/// How often the folder of policy components is looked at.
const POLICIES: Duration = Duration::from_secs(2);
/// How long a client may take to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How many clients may be connected at once; each held call and listening
/// stream is one.
const CONNECTIONS: usize = 16_384;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] if it cannot begin.
pub async fn run(config: Config) -> Result<(), StartError> {
    let listener = TcpListener::bind(config.server.listen).await.map_err(|e| {
        StartError::Part(format!(
            "cannot listen on {}: {e}; stop what listens there, or change [server] listen",
            config.server.listen
        ))
    })?;
    // Listened for from here on: who reads that it serves may ask it to stop.
    let signals = |kind| signal(kind).map_err(|e| StartError::Part(e.to_string()));
    let stop = (
        signals(SignalKind::terminate())?,
        signals(SignalKind::interrupt())?,
    );
    let reload = signals(SignalKind::hangup())?;
    let app = App::open(config).await?;
    let keys = app.oauth.keep_signers().await;
    keys.map_err(|e| StartError::Part(e.to_string()))?;
    tracing::info!(listen = %app.config.server.listen, public_url = %app.public_url, "serving");
    eprintln!(
        "Countersign serves {} (listening on {}).",
        app.public_url, app.config.server.listen
    );
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&app)));
    let following = tokio::spawn(follow_catalog(Arc::clone(&app)));
    let decisions = tokio::spawn(crate::replay::follow(Arc::clone(&app)));
    let faults = tokio::spawn(crate::faults::follow(Arc::clone(&app)));
    let policies = tokio::spawn(follow_policies(Arc::clone(&app)));
    let replicas = tokio::spawn(crate::replicas::follow(Arc::clone(&app)));
    let trust = tokio::spawn(crate::trust::follow(Arc::clone(&app), reload));
    let keys = tokio::spawn(Arc::clone(&app.sealing).follow());
    let upkeep = tokio::spawn(look_after_connections(Arc::clone(&app)));
    accept(&app, listener, stop).await?;
    keys.abort();
    housekeeping.abort();
    following.abort();
    faults.abort();
    decisions.abort();
    policies.abort();
    replicas.abort();
    trust.abort();
    upkeep.abort();
    app.recorder
        .flush(app.world.records.as_ref(), app.world.clock.now())
        .await;
    app.strangers.tell(&*app.world.audit, app.world.clock.now());
    app.audit.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn accept(
    app: &Arc<App>,
    listener: TcpListener,
    (mut terminate, mut interrupt): (Signal, Signal),
) -> Result<(), StartError> {
    let router = crate::http::router(app);
    let lanes = Lanes::open()
        .map_err(|e| StartError::Part(format!("the threads that serve do not start: {e}")))?;
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: let some calls end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Beyond the cap a connection is closed at once: those that are open go
        // on being served.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, "too many connections; one was refused");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (app, router) = (Arc::clone(app), router.clone());
        let service = service_fn(move |request| {
            crate::http::answer(Arc::clone(&app), router.clone(), peer, request)
        });
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be handed over");
                continue;
            }
        };
        let (http, watcher) = (http.clone(), graceful.watcher());
        lanes.run(move || async move {
            // Its readiness is watched by the lane it is served on.
            let served = match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection).await.map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    tracing::info!("stopping: calls in flight are finished first");
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("some calls did not end in time"),
    }
    Ok(())
}

async fn keep_house(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        app.strangers.tell(&*app.world.audit, app.world.clock.now());
        if let Err(error) = app.oauth.keep_signers().await {
            tracing::warn!(%error, "the signing keys could not be kept in order");
        }
        match app.world.records.sweep(app.world.clock.now()).await {
            Ok(0) => {}
            Ok(swept) => {
                app.metrics.swept(swept);
                tracing::debug!(swept, "expired records removed");
            }
            Err(error) => tracing::warn!(%error, "expired records could not be removed"),
        }
    }
}

/// Renews, warns and revokes what is due. One look at the index when nothing is.
async fn look_after_connections(app: Arc<App>) {
    match app.oauth.make_appointments().await {
        Ok(0) => {}
        Ok(made) => tracing::info!(made, "connections of an earlier version are looked after"),
        Err(error) => tracing::warn!(%error, "some connections are not looked after yet"),
    }
    let registry = Arc::clone(&app.registry);
    let parties: Arc<dyn Parties> =
        Arc::new(move |provider: &ProviderName| registry.party(provider));
    loop {
        let pause = match app.oauth.begin_round(&parties).await {
            Ok(round) if round.is_full => UPKEEP_BUSY,
            Ok(_) => UPKEEP,
            Err(error) => {
                tracing::warn!(%error, "background work could not be looked for");
                UPKEEP
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks for policy components that came or went, by polling: the folder need
/// not be there, and network disks tell nobody.
async fn follow_policies(app: Arc<App>) {
    loop {
        tokio::time::sleep(POLICIES).await;
        let catalog = Arc::clone(&app.catalog);
        let changed = tokio::task::spawn_blocking(move || catalog.policies().rescan()).await;
        if matches!(changed, Ok(true))
            && let Err(error) = app.registry.refresh().await
        {
            tracing::error!(%error, "policies could not be read again");
        }
    }
}

/// Keeps approvals and audit in step with what the catalog does by itself.
async fn follow_catalog(app: Arc<App>) {
    let mut events = app.catalog.subscribe_from_start();
    // A start binds everybody: that a version serves as before is no news.
    while let Ok(event) = events.try_recv() {
        let is_news = !matches!(
            event,
            CatalogEvent::Swapped {
                from: None,
                automatic: None,
                ..
            }
        );
        if is_news {
            app.registry.follow(event).await;
        }
    }
    loop {
        match events.recv().await {
            Ok(event) => {
                // What served before is dropped with the last call on it.
                app.attachments.forget_outdated();
                app.registry.follow(event).await;
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "catalog events were missed");
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

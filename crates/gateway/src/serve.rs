//! `verbatim serve`: starts the parts in order, waits for a signal, and ends them in reverse.
//!
//! Exit status: 0 after SIGTERM or SIGINT, 1 where a part cannot start or the ledger failed, 3 where it is damaged.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_lc_rs::{digest, rand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use verbatim_entra::Providers;
use verbatim_ledger::{Admission, Ledger, OpenError};
use verbatim_stack::{Stack, Withholding};
use verbatim_store::{Follow, Index, Labels};

use crate::config::Config;
use crate::control::{self, Control};
use crate::delivery::Delivery;
use crate::gateway::{ConfigInForce, Gateway, Provider, policy};
use crate::listen::{Workers, accept, bind};
use crate::tls::Certificate;
use crate::{admin, telemetry};

/// The ledger is damaged: `verbatim verify` says where.
const DAMAGED: u8 = 3;
/// How long sinks may take for what is left at the end.
const SINKS_END: Duration = Duration::from_secs(5);
/// How long sessions get to hear that the ledger failed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Changes to files within this time are one change.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs the gateway to its end.
pub(crate) fn run(config: Config) -> Result<ExitCode> {
    let _telemetry = telemetry::start(&config.gateway)?;
    raise_file_limit();
    let (ledger, recovery) = match Ledger::open(config.ledger.clone()) {
        Ok(opened) => opened,
        Err(error @ OpenError::Damaged { .. }) => {
            eprintln!("verbatim: {error}\nhint: `verbatim verify` says what is wrong; nothing was changed");
            return Ok(ExitCode::from(DAMAGED));
        }
        Err(error) => return Err(error).context("the ledger"),
    };
    if !recovery.clean && !recovery.created {
        tracing::warn!(
            discarded_bytes = recovery.discarded_bytes,
            crashed_sessions = recovery.crashed_sessions.len(),
            aborted_operations = recovery.aborted_operations,
            "the process before this one did not stop in order; what it left open is closed on record"
        );
    }
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("verbatim-control")
        .enable_all()
        .build()?;
    let ended = control.block_on(serve(config, ledger.clone()));
    // Whatever still blocks (an asker that reads slowly) does not keep the process.
    control.shutdown_timeout(Duration::from_secs(1));
    ledger.close();
    ended
}

/// As many file descriptors as the system lets us have: a session takes two.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(config: Config, ledger: Ledger) -> Result<ExitCode> {
    let config = Arc::new(config);
    let data_dir = config.gateway.data_dir.clone();
    let providers = Providers::new(config.identity.clone())?;
    providers.start();
    let provider = Arc::new(Provider::new(providers));
    let withholding = Withholding::new(&digest_key(&data_dir)?);
    let stack =
        Arc::new(Stack::new(ledger.clone(), Arc::clone(&provider) as _, policy(&config), withholding));
    let certificate = config.gateway.tls.as_ref().map(Certificate::load).transpose()?.map(Arc::new);
    let binary = own_digest()?;
    ledger.append(&ConfigInForce::new(&config, binary, "start"))?;
    let (index, follow) = index(&data_dir, &ledger, config.interceptors.labels()).await?;
    let delivery = Arc::new(Delivery::start(&config, &ledger)?);
    let facts = Arc::clone(&delivery);
    ledger.set_heartbeat_facts(Arc::new(move || facts.facts()));
    let gateway = Arc::new(Gateway::new(
        Arc::clone(&config),
        binary,
        ledger.clone(),
        stack,
        provider,
        certificate,
        index,
        delivery,
    ));
    let workers = Arc::new(Workers::start()?);
    let mut tasks = listeners(&gateway, &workers)?;
    let question = Control {
        index: Arc::clone(&gateway.index),
        ledger: ledger.clone(),
        delivery: Arc::clone(&gateway.delivery),
    };
    tasks.spawn(async move { control::serve(&data_dir, Arc::new(question)).await });
    let stack = Arc::clone(&gateway.stack);
    tasks.spawn(async move {
        stack.watch().await;
        Ok(())
    });
    gateway.listening.store(true, Relaxed);
    tracing::info!(node = config.gateway.node, sync = ?config.ledger.sync, "the gateway is open");
    let failed = until_signal(&gateway, &mut tasks).await?;
    if !failed {
        drain(&gateway).await;
    }
    tasks.shutdown().await;
    end(gateway, workers, follow).await;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn index(data_dir: &Path, ledger: &Ledger, labels: Labels) -> Result<(Arc<Index>, Follow)> {
    let (data_dir, ledger) = (data_dir.to_owned(), ledger.clone());
    tokio::task::spawn_blocking(move || {
        let index = Index::open(&data_dir, ledger.dir(), labels).context("the session index")?;
        let index = Arc::new(index);
        let follow = index.follow(ledger.committed()).context("the session index")?;
        Ok((index, follow))
    })
    .await?
}

/// Opens every listener before any of them serves, so that a port that is taken stops the start.
fn listeners(gateway: &Arc<Gateway>, workers: &Arc<Workers>) -> Result<tokio::task::JoinSet<Result<()>>> {
    let config = gateway.config();
    let mut tasks = tokio::task::JoinSet::new();
    let mut opened = Vec::new();
    for interceptor in config.interceptors.iter() {
        let name = interceptor.name();
        let shared = config.listen.protocols.iter().filter(|(protocol, _)| *protocol == name);
        let shared = shared.flat_map(|(_, addresses)| addresses.iter().map(|address| (*address, None)));
        let own =
            config.own_listeners().filter(|(connection, _)| interceptor.types().contains(&connection.kind));
        for (address, connection) in
            shared.chain(own.map(|(connection, address)| (address, Some(connection))))
        {
            let listener = gateway.listener(&**interceptor, address, connection);
            opened.push((bind(address)?, Arc::clone(interceptor).listen(listener)));
            tracing::info!(%address, connection = connection.map(|c| c.name.as_str()), "listening for {name}");
        }
    }
    for address in &config.listen.admin {
        let (listener, gateway) = (bind(*address)?, Arc::clone(gateway));
        tracing::info!(%address, "listening for admin");
        tasks.spawn(async move { admin::serve(listener, gateway).await });
    }
    for (listener, serve) in opened {
        tasks.spawn(accept(listener, Arc::clone(workers), serve));
    }
    Ok(tasks)
}

/// Waits for the end: false for a signal, true for a ledger that failed. Reloads meanwhile.
async fn until_signal(gateway: &Arc<Gateway>, tasks: &mut tokio::task::JoinSet<Result<()>>) -> Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (changes, mut changed) = mpsc::channel(1);
    // Kept while it watches.
    let _watcher = watch_files(gateway, changes);
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(false),
            _ = interrupt.recv() => return Ok(false),
            _ = hangup.recv() => reload(gateway, "SIGHUP").await,
            Some(()) = changed.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changed.try_recv().is_ok() {}
                reload(gateway, "a changed file").await;
            }
            _ = look.tick() => if gateway.ledger.admits() == Admission::Nothing {
                tracing::error!("the ledger failed: nothing can be recorded, so the gateway ends");
                tokio::time::sleep(LAST_WORDS).await;
                return Ok(true);
            },
            Some(ended) = tasks.join_next() => ended??,
        }
    }
}

async fn reload(gateway: &Arc<Gateway>, why: &str) {
    let old = gateway.config();
    let config = match Config::read(&old.path, &old.interceptors) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, why, "the configuration has mistakes; the one in force stays");
            return;
        }
    };
    match gateway.reload(config).await {
        Ok(restart) if restart.is_empty() => tracing::info!(why, "reloaded"),
        Ok(restart) => tracing::warn!(why, ?restart, "reloaded; what is named needs a restart"),
        Err(error) => tracing::error!(error = format!("{error:#}"), why, "not reloaded"),
    }
}

/// Watches the folders of the configuration and of the certificate: files in a mounted folder change by a swap of
/// symbolic links.
fn watch_files(gateway: &Gateway, changes: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    use notify::{EventKind, RecursiveMode, Watcher as _};
    let config = gateway.config();
    let mut files = vec![config.path.clone()];
    if let Some(certificate) = &gateway.certificate {
        files.extend([certificate.files().certificate.clone(), certificate.files().private_key.clone()]);
    }
    let folder = |file: &std::path::PathBuf| match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => std::path::PathBuf::from("."),
    };
    let folders: std::collections::BTreeSet<_> = files.iter().map(folder).collect();
    let mut seen: Vec<_> = files.iter().map(|file| stamp(file)).collect();
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            return;
        }
        let now: Vec<_> = files.iter().map(|file| stamp(file)).collect();
        if now != seen {
            seen = now;
            // Full means that a change is already waiting.
            let _ = changes.try_send(());
        }
    };
    let watched = notify::recommended_watcher(handler).and_then(|mut watcher| {
        folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    });
    watched.map_err(|error| tracing::warn!(%error, "files are not watched; SIGHUP reloads")).ok()
}

/// What tells one version of a file from the next.
fn stamp(file: &Path) -> Option<(std::time::SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Lets running operations end, as long as configured.
async fn drain(gateway: &Gateway) {
    let sessions = gateway.stack.sessions();
    tracing::info!(sessions = sessions.len(), "shutting down");
    gateway.listening.store(false, Relaxed);
    gateway.stack.drain();
    let ended = async {
        while !sessions.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(gateway.config().drain(), ended).await.is_err() {
        tracing::warn!(sessions = sessions.len(), "[gateway] drain is over; what still runs is cut off");
    }
}

async fn end(gateway: Arc<Gateway>, workers: Arc<Workers>, follow: Follow) {
    // Every listener's task is gone, so this is the last reference, and dropping it ends the sessions that are left.
    if let Some(workers) = Arc::into_inner(workers) {
        let stopped = tokio::task::spawn_blocking(move || workers.stop());
        if stopped.await.is_err() {
            tracing::error!("the session threads did not stop in order");
        }
    }
    gateway.ledger.set_heartbeat_facts(Arc::new(verbatim_ledger::HeartbeatFacts::default));
    let delivery = Arc::clone(&gateway.delivery);
    drop(gateway);
    if let Some(delivery) = Arc::into_inner(delivery) {
        delivery.stop(SINKS_END).await;
    }
    let stopped = tokio::task::spawn_blocking(move || drop(follow));
    if stopped.await.is_err() {
        tracing::error!("the session index did not stop in order");
    }
}

/// The node's key for digests of values that are not kept; made at the first start.
fn digest_key(data_dir: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data_dir.join("keys").join("digest.key");
    match std::fs::read(&path) {
        Ok(key) if key.len() == 32 => return Ok(key),
        Ok(_) => anyhow::bail!("{}: not a key of 32 bytes", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let mut key = vec![0; 32];
    rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = made.with_context(|| path.display().to_string())?;
    std::io::Write::write_all(&mut file, &key)?;
    file.sync_all()?;
    Ok(key)
}

/// SHA-256 of the binary that runs.
fn own_digest() -> Result<[u8; 32]> {
    let mut file = File::open("/proc/self/exe").context("reading the binary itself")?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            break;
        }
        context.update(piece.get(..length).unwrap_or_default());
    }
    Ok(context.finish().as_ref().try_into()?)
}

//! Listeners, and the threads that own sessions: a runtime each, a session on one of them from accept to close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use verbatim_wire::Serve;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// Accepted streams that wait for their thread.
const HANDED_OVER_MAX: usize = 256;
/// How long accepting rests after an error that is no client's (no file descriptors left).
const REST: Duration = Duration::from_millis(100);

/// Opens a listener; a port that is taken is an error.
pub(crate) fn bind(address: SocketAddr) -> Result<std::net::TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for streams of the process before it.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok::<_, std::io::Error>(socket.into())
    };
    open().with_context(|| format!("listening on {address}"))
}

type Job = Box<dyn FnOnce() -> verbatim_core::BoxFuture<'static, ()> + Send>;

/// The threads that own sessions.
pub(crate) struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts threads, each with a runtime of its own: one for each core but the one that is left to the ledger's commits,
    /// the index and the sinks. A thread that has more sessions at hand also gets more done at each look at its sockets.
    pub(crate) fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores.saturating_sub(1).max(1)).map(worker).collect::<Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Hands a job to the next thread; it stays there to its end.
    async fn hand_over(&self, job: Job) {
        let turn = self.next.fetch_add(1, Relaxed);
        if let Some(worker) = self.threads.get(turn % self.threads.len().max(1)) {
            // A thread that has ended takes nothing: the gateway is shutting down.
            drop(worker.jobs.send(job).await);
        }
    }

    /// Ends every session that still runs, and waits until its thread has.
    pub(crate) fn stop(self) {
        for Worker { jobs, thread } in self.threads {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("a session thread panicked");
            }
        }
    }
}

fn worker(number: usize) -> Result<Worker> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (jobs, mut queue) = mpsc::channel::<Job>(HANDED_OVER_MAX);
    let run = move || {
        runtime.block_on(async {
            while let Some(job) = queue.recv().await {
                // A panic ends this session alone; its permits' drop has recorded what was open.
                tokio::spawn(job());
            }
        });
        // Dropping the runtime drops the sessions that are left.
    };
    let thread = std::thread::Builder::new().name(format!("verbatim-session-{number}")).spawn(run)?;
    Ok(Worker { jobs, thread })
}

/// Accepts streams and hands each to a thread, until the task is dropped.
pub(crate) async fn accept(
    listener: std::net::TcpListener,
    workers: Arc<Workers>,
    serve: Serve,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Ok(stream) = stream.into_std() else { continue };
        let serve = Arc::clone(&serve);
        // The stream is registered with the runtime that will own it.
        let job: Job = Box::new(move || match TcpStream::from_std(stream) {
            Ok(stream) => serve(stream, peer),
            Err(_) => Box::pin(async {}),
        });
        workers.hand_over(job).await;
    }
}

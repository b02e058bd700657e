//! The machine's floor: a relay that understands nothing, on one thread, for the benchmark to compare with.
//!
//! Whatever a recording gateway costs, it costs on top of moving bytes from one socket to another. How much that alone
//! takes differs from machine to machine and from minute to minute, so it is measured in every run, in three forms:
//!
//! ```text
//! pass      client ── read, write ── target
//! record    the same, and both directions are appended to a file, once for each turn of the loop
//! durable   the same, and the client's bytes go on only after an fdatasync; those that come meanwhile share the next
//! ```
//!
//! It is no proxy for use: it trusts both sides and ends at the first fault that is not one stream's own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};

/// What one read takes at most.
const READ_MAX: usize = 64 << 10;
/// What is held back of one client until it is synced, before no more is read from it.
const HELD_MAX: usize = 1 << 20;
/// What is recorded without a sync before it is written on its own.
const RECORD_MAX: usize = 1 << 20;
/// Events taken in one turn.
const EVENTS_MAX: usize = 256;

/// The listener's token; a pair's are twice its number, and one more for its target.
const LISTENER: u64 = 0;
/// The token of what the syncing thread signals with.
const SYNCED: u64 = 1;
const FIRST_PAIR: u64 = 1;

/// What a relay does beside relaying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Appends what it relays to a file, without a sync.
    Record,
    /// Forwards what clients send only once it is in the file and synced.
    Durable,
}

/// A relay that listens, and has yet to run.
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    target: SocketAddr,
    mode: Mode,
    record: Option<Arc<File>>,
}

impl Relay {
    /// Listens on `listen` for streams to `target`. `record` is the file of the modes that write one; it is made, or
    /// appended to.
    ///
    /// # Errors
    /// The address is taken, the file cannot be opened, or the mode wants a file and there is none.
    pub fn bind(listen: SocketAddr, target: SocketAddr, mode: Mode, record: Option<&Path>) -> Result<Self> {
        let record = match mode {
            Mode::Pass => None,
            Mode::Record | Mode::Durable => {
                let path = record.context("this mode needs a file to record to")?;
                let file = File::options().create(true).append(true).open(path);
                Some(Arc::new(file.with_context(|| path.display().to_string())?))
            }
        };
        let listener = TcpListener::bind(listen).with_context(|| listen.to_string())?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, target, mode, record })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Relays until the process ends.
    ///
    /// # Errors
    /// The file cannot be written or synced, or epoll fails.
    pub fn run(self) -> Result<Infallible> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &self.listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        let syncer = match (&self.record, self.mode) {
            (Some(file), Mode::Durable) => Some(Syncer::start(file, &epoll)?),
            _ => None,
        };
        Loop {
            epoll,
            listener: self.listener,
            target: self.target,
            record: self.record,
            syncer,
            pairs: HashMap::new(),
            next: FIRST_PAIR,
            buffer: vec![0; READ_MAX],
            recorded: Vec::new(),
        }
        .run()
    }
}

/// The thread that syncs, and what waits for it.
struct Syncer {
    batches: SyncSender<Vec<u8>>,
    signal: Arc<OwnedFd>,
    /// Pairs whose bytes the running sync covers, with how many of them.
    running: Vec<(u64, usize)>,
    /// Pairs that wait for the next.
    waiting: Vec<u64>,
}

impl Syncer {
    fn start(file: &Arc<File>, epoll: &OwnedFd) -> Result<Self> {
        let signal = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(epoll, &signal, epoll::EventData::new_u64(SYNCED), epoll::EventFlags::IN)?;
        let (batches, queue) = sync_channel(1);
        let (file, done) = (Arc::clone(file), Arc::clone(&signal));
        std::thread::Builder::new()
            .name("floor-sync".to_owned())
            .spawn(move || sync(&file, &queue, &done))?;
        Ok(Self { batches, signal, running: Vec::new(), waiting: Vec::new() })
    }
}

/// Writes and syncs batches until the relay ends. A failure is not signalled: nothing is forwarded from then on, and the
/// relay's next batch finds the thread gone.
fn sync(mut file: &File, queue: &Receiver<Vec<u8>>, done: &OwnedFd) {
    while let Ok(batch) = queue.recv() {
        let synced = file.write_all(&batch).and_then(|()| file.sync_data());
        if synced.is_err() || rustix::io::write(done, &1_u64.to_ne_bytes()).is_err() {
            return;
        }
    }
}

/// One side of a pair.
struct Side {
    stream: TcpStream,
    /// What it did not take yet.
    unsent: Vec<u8>,
    /// It sends nothing more.
    ended: bool,
    interest: epoll::EventFlags,
}

impl Side {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unsent: Vec::new(), ended: false, interest: epoll::EventFlags::IN })
    }

    /// Sends what it takes now, and keeps the rest.
    fn send(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        if self.unsent.is_empty() {
            let sent = write_some(&mut self.stream, bytes)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let sent = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }
}

fn write_some(stream: &mut TcpStream, mut bytes: &[u8]) -> std::io::Result<usize> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(whole - bytes.len())
}

struct Pair {
    client: Side,
    target: Side,
    /// What the client sent and no sync covers yet.
    held: Vec<u8>,
}

impl Pair {
    /// Neither side is owed anything that it could still get.
    fn is_over(&self) -> bool {
        (self.client.ended && self.held.is_empty() && self.target.unsent.is_empty())
            || (self.target.ended && self.client.unsent.is_empty())
    }
}

struct Loop {
    epoll: OwnedFd,
    listener: TcpListener,
    target: SocketAddr,
    record: Option<Arc<File>>,
    syncer: Option<Syncer>,
    pairs: HashMap<u64, Pair>,
    next: u64,
    buffer: Vec<u8>,
    /// What this turn relayed, for the file.
    recorded: Vec<u8>,
}

impl Loop {
    fn run(mut self) -> Result<Infallible> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    SYNCED => self.synced()?,
                    token => self.serve(token, event.flags),
                }
            }
            self.write_record()?;
        }
    }

    fn accept(&mut self) -> Result<()> {
        let client = match self.listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // A target that refuses is this stream's fault alone; on loopback a connect does not block.
        let Ok(target) = TcpStream::connect(self.target) else { return Ok(()) };
        let pair = Pair { client: Side::new(client)?, target: Side::new(target)?, held: Vec::new() };
        let number = self.next;
        self.next += 1;
        for (token, side) in [(number * 2, &pair.client), (number * 2 + 1, &pair.target)] {
            epoll::add(&self.epoll, &side.stream, epoll::EventData::new_u64(token), side.interest)?;
        }
        self.pairs.insert(number, pair);
        Ok(())
    }

    /// Something happened on one side of a pair; whatever fails there ends that pair.
    fn serve(&mut self, token: u64, flags: epoll::EventFlags) {
        let number = token / 2;
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let from_client = token.is_multiple_of(2);
        let (from, to) = if from_client {
            (&mut pair.client, &mut pair.target)
        } else {
            (&mut pair.target, &mut pair.client)
        };
        let mut failed = flags.contains(epoll::EventFlags::OUT) && from.flush().is_err();
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            match from.stream.read(&mut self.buffer) {
                Ok(0) => from.ended = true,
                Ok(read) => {
                    let bytes = self.buffer.get(..read).unwrap_or_default();
                    if self.record.is_some() {
                        self.recorded.extend_from_slice(bytes);
                    }
                    match &mut self.syncer {
                        Some(syncer) if from_client => {
                            if !syncer.waiting.contains(&number) {
                                syncer.waiting.push(number);
                            }
                            pair.held.extend_from_slice(bytes);
                        }
                        _ => failed |= to.send(bytes).is_err(),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => failed = true,
            }
        }
        self.settle(number, failed);
    }

    /// Ends a pair that is over, or asks for the events that matter to it now.
    fn settle(&mut self, number: u64, failed: bool) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let hears_client = pair.target.unsent.is_empty() && pair.held.len() < HELD_MAX;
        let hears_target = pair.client.unsent.is_empty();
        let mut failed = failed || pair.is_over();
        for (token, side, hears) in
            [(number * 2, &mut pair.client, hears_client), (number * 2 + 1, &mut pair.target, hears_target)]
        {
            let mut interest = epoll::EventFlags::empty();
            interest.set(epoll::EventFlags::IN, hears && !side.ended);
            interest.set(epoll::EventFlags::OUT, !side.unsent.is_empty());
            if interest != side.interest {
                side.interest = interest;
                let data = epoll::EventData::new_u64(token);
                failed |= epoll::modify(&self.epoll, &side.stream, data, interest).is_err();
            }
        }
        if failed {
            self.pairs.remove(&number);
        }
    }

    /// Forwards what the sync that ended covers.
    fn synced(&mut self) -> Result<()> {
        let Some(syncer) = &mut self.syncer else { return Ok(()) };
        rustix::io::read(&syncer.signal, &mut [0_u8; 8])?;
        for (number, length) in std::mem::take(&mut syncer.running) {
            let Some(pair) = self.pairs.get_mut(&number) else { continue };
            let failed = pair.held.get(..length).is_none_or(|bytes| pair.target.send(bytes).is_err());
            pair.held.drain(..length.min(pair.held.len()));
            self.settle(number, failed);
        }
        Ok(())
    }

    /// Writes what this turn relayed, or hands it to the syncing thread if that has nothing to do.
    fn write_record(&mut self) -> Result<()> {
        let Some(mut file) = self.record.as_deref() else { return Ok(()) };
        let Some(syncer) = &mut self.syncer else {
            file.write_all(&self.recorded)?;
            self.recorded.clear();
            return Ok(());
        };
        if syncer.running.is_empty() && !syncer.waiting.is_empty() {
            for number in syncer.waiting.drain(..) {
                if let Some(pair) = self.pairs.get(&number) {
                    syncer.running.push((number, pair.held.len()));
                }
            }
            if !syncer.running.is_empty() {
                let batch = std::mem::take(&mut self.recorded);
                syncer.batches.send(batch).ok().context("the record cannot be synced")?;
            }
        } else if self.recorded.len() > RECORD_MAX && syncer.waiting.is_empty() {
            file.write_all(&self.recorded)?;
            self.recorded.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Shutdown};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// A target that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        address
    }

    #[test]
    fn every_byte_comes_back_in_every_mode_and_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        // More than the sockets' buffers hold, so that both sides have to wait.
        let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 251) as u8).collect();
        for mode in [Mode::Pass, Mode::Record, Mode::Durable] {
            let path = dir.path().join(format!("{mode:?}"));
            let relay = Relay::bind(ANY, echo(), mode, Some(&path)).unwrap();
            let address = relay.address().unwrap();
            std::thread::spawn(move || relay.run());
            let mut client = TcpStream::connect(address).unwrap();
            let mut sender = client.try_clone().unwrap();
            let sent = bytes.clone();
            let sending = std::thread::spawn(move || sender.write_all(&sent));
            let mut back = vec![0; bytes.len()];
            client.read_exact(&mut back).unwrap();
            sending.join().unwrap().unwrap();
            assert!(back == bytes, "{mode:?}");
            client.shutdown(Shutdown::Write).unwrap();
            let recorded = path.metadata().map_or(0, |file| file.len());
            // What the target sent may still be on its way to the file; what the client sent is there.
            assert_eq!(recorded >= bytes.len() as u64, mode != Mode::Pass, "{mode:?}: {recorded}");
        }
    }
}

//! A disk whose power fails: what was not synced is kept, lost, or torn between sectors.

use kubesim_runtime::{Rng, Stream};
use redb::StorageBackend;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes whole.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// What is there when the power comes back.
    durable: Vec<u8>,
    /// What is read.
    cached: Vec<u8>,
    pending: Vec<Change>,
    dice: Rng,
    /// A disk that is not told to sync, or lies.
    honest: bool,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

/// The disk until its power fails.
#[derive(Debug)]
pub struct Powered {
    disk: Disk,
    /// Writes and syncs that are left.
    fuel: Arc<AtomicU64>,
}

impl Disk {
    pub fn new(seed: u64, honest: bool) -> Disk {
        let dice = Rng::new(Stream { seed, label: "disk", index: 0, incarnation: 0 });
        let (durable, cached) = Default::default();
        Disk(Arc::new(Mutex::new(Inner { durable, cached, pending: vec![], dice, honest })))
    }

    /// The power fails with the write or sync after so many; [`Disk::fail`] says when at the
    /// latest.
    pub fn power(&self, fuel: u64) -> (Powered, Arc<AtomicU64>) {
        let fuel = Arc::new(AtomicU64::new(fuel));
        (Powered { disk: self.clone(), fuel: Arc::clone(&fuel) }, fuel)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panicked")
    }

    /// What is left of what was not synced is decided by dice.
    pub fn fail(&self, fuel: &AtomicU64) {
        fuel.store(0, Ordering::SeqCst);
        let mut inner = self.inner();
        for change in std::mem::take(&mut inner.pending) {
            inner.survive(change);
        }
        inner.cached = inner.durable.clone();
    }
}

impl Inner {
    fn survive(&mut self, change: Change) {
        let fate = self.dice.u64() % 3;
        match change {
            Change::Length(length) if fate != 0 => self.durable.resize(length, 0),
            Change::Write { at, data } if fate == 1 => write(&mut self.durable, at, &data),
            Change::Write { at, data } if fate == 2 => {
                for (number, sector) in data.chunks(SECTOR).enumerate() {
                    if self.dice.u64().is_multiple_of(2) {
                        write(&mut self.durable, at + number * SECTOR, sector);
                    }
                }
            }
            Change::Length(_) | Change::Write { .. } => {}
        }
    }
}

fn write(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    image.resize(image.len().max(at + data.len()), 0);
    image[at..at + data.len()].copy_from_slice(data);
}

impl Powered {
    /// One more write or sync.
    fn burn(&self) -> io::Result<()> {
        let left = self.fuel.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |f| f.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("the power failed"))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let on = self.burn();
        if on.is_ok() {
            let mut inner = self.disk.inner();
            match &change {
                Change::Write { at, data } => write(&mut inner.cached, *at, data),
                Change::Length(length) => inner.cached.resize(*length, 0),
            }
            inner.pending.push(change);
        }
        on
    }
}

impl StorageBackend for Powered {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.inner();
        let at = offset as usize;
        let found = inner.cached.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.burn()?;
        let mut inner = self.disk.inner();
        if inner.honest {
            inner.durable = inner.cached.clone();
            inner.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { at: offset as usize, data: data.to_vec() })
    }
}

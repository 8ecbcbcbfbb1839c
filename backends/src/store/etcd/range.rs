//! Ranges, read in pages of one revision: an answer of etcd's is not to be larger than gRPC's
//! messages may be.

use super::connect::Failure;
use super::{Inner, end_of, of_etcd, to_etcd};
use etcd_client::{GetOptions, GetResponse};
use kubesim_actors::objects::Object;
use kubesim_actors::ports::store::{Range, Reply};
use smol_str::SmolStr;
use std::sync::Arc;

/// Keys of one page. Of objects of 1.5 MiB, etcd's largest, they fit [`LARGEST`].
const PAGE: usize = 256;
/// Bytes of an answer; tonic's own limit is 4 MiB.
pub(super) const LARGEST: usize = 512 << 20;
/// How often everything is read anew because what was begun was compacted meanwhile.
const RESTARTS: usize = 3;

enum Broke {
    Failure(Failure),
    Unreadable(SmolStr),
}

impl Inner {
    pub async fn range(&self, range: Range) -> Reply {
        let id = range.id;
        let compacted = match self.find_compacted().await {
            Ok(compacted) => compacted,
            Err(failure) => return self.not_read(id, failure).await,
        };
        for _ in 0..RESTARTS {
            match self.pages(&range).await {
                Ok((revision, more, objects)) => {
                    return Reply::Range { id, revision, compacted, more, objects };
                }
                Err(Broke::Unreadable(why)) => return Reply::Refused { id, why },
                Err(Broke::Failure(Failure::Revision { compacted: true }))
                    if range.revision == 0 => {}
                Err(Broke::Failure(failure)) => return self.not_read(id, failure).await,
            }
        }
        Reply::Unknown { id }
    }

    async fn not_read(&self, id: u64, failure: Failure) -> Reply {
        let asked = match failure {
            Failure::Refused(why) => return Reply::Refused { id, why },
            Failure::Unknown => return Reply::Unknown { id },
            Failure::Revision { compacted: true } => {
                self.find_compacted().await.map(|compacted| Reply::Forgotten { id, compacted })
            }
            Failure::Revision { compacted: false } => {
                self.revision().await.map(|revision| Reply::Ahead { id, revision })
            }
        };
        match asked {
            Ok(reply) => reply,
            Err(Failure::Refused(why)) => Reply::Refused { id, why },
            Err(_) => Reply::Unknown { id },
        }
    }

    async fn pages(&self, range: &Range) -> Result<(u64, bool, Vec<Arc<Object>>), Broke> {
        let prefix = self.prefix(&range.under);
        let end = end_of(&prefix);
        let after = range.after.as_ref().map(|key| next(self.path(key).as_bytes()));
        let mut first = prefix.into_bytes().max(after.unwrap_or_default());
        let mut objects = Vec::new();
        let mut revision = range.revision;
        if first >= end {
            let now = self.revision().await.map_err(Broke::Failure)?;
            return match revision <= now {
                true => Ok((if revision == 0 { now } else { revision }, false, objects)),
                false => Err(Broke::Failure(Failure::Revision { compacted: false })),
            };
        }
        loop {
            // One more than is wanted says whether there is more: what follows may be of others.
            let limit = match range.limit {
                0 => PAGE,
                limit => (limit - objects.len()).saturating_add(1).min(PAGE),
            };
            let page = self.page(&first, &end, revision, limit).await.map_err(Broke::Failure)?;
            if revision == 0 {
                revision = page.header().map_or(0, |header| of_etcd(header.revision()));
            }
            for found in page.kvs() {
                if let Some(key) = self.key_of(found.key(), Some(found.value())) {
                    let object = self.object(&key, found.value(), of_etcd(found.mod_revision()));
                    objects.push(object.map_err(Broke::Unreadable)?);
                }
            }
            if range.limit > 0 && objects.len() > range.limit {
                objects.truncate(range.limit);
                return Ok((revision, true, objects));
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                return Ok((revision, false, objects));
            };
            first = next(last.key());
        }
    }

    async fn page(
        &self,
        first: &[u8],
        end: &[u8],
        revision: u64,
        limit: usize,
    ) -> Result<GetResponse, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(end).with_limit(limit);
        let options = options.with_revision(to_etcd(revision));
        self.connections
            .until(self.deadline, async |client| {
                let mut kv = client.kv_client().max_decoding_message_size(LARGEST);
                kv.get(first, Some(options.clone())).await
            })
            .await
    }

    /// The newest revision there is.
    pub async fn revision(&self) -> Result<u64, Failure> {
        self.probe(0).await
    }

    /// The newest revision; fails if what was at `revision` cannot be read.
    pub async fn probe(&self, revision: u64) -> Result<u64, Failure> {
        let options = GetOptions::new().with_count_only().with_revision(to_etcd(revision));
        let nothing = format!("{}/", self.root);
        let got = self
            .connections
            .until(self.deadline, async |client| {
                client.kv_client().get(&*nothing, Some(options.clone())).await
            })
            .await?;
        Ok(got.header().map_or(0, |header| of_etcd(header.revision())))
    }
}

/// The first key behind this one.
fn next(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

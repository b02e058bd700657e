//! The ledger, as it is walked over, against what left the node: checkpoints, and sinks' copies of entries.

use std::collections::{BTreeMap, VecDeque};

use verbatim_core::{SessionId, Timestamp};

use crate::hash::Hash;
use crate::note::{Signed, VerifyingKey};
use crate::tree::Frontier;
use crate::verify::anchors::Anchor;
use crate::verify::copies::Copied;
use crate::verify::report::{Finding, Findings};

/// What left the node of one log, and is still to be compared.
pub(super) struct Against<'a> {
    key: &'a VerifyingKey,
    /// The smallest first.
    anchors: VecDeque<&'a Anchor>,
    /// In the log's order.
    copies: VecDeque<&'a Copied>,
    /// Entry indexes at which processes began.
    starts: Vec<u64>,
    /// The newest anchor that agrees: its size, and the time of its last entry.
    anchored: Option<(u64, Timestamp)>,
}

impl<'a> Against<'a> {
    pub(super) fn new(key: &'a VerifyingKey, anchors: &'a [Anchor], copies: &'a [Copied]) -> Self {
        let mut copies: Vec<_> = copies.iter().filter(|copy| *copy.origin == *key.name).collect();
        copies.sort_by_key(|copy| copy.index);
        let mut anchors: Vec<_> = anchors.iter().filter(|a| a.checkpoint.origin == key.name).collect();
        anchors.sort_by_key(|anchor| anchor.checkpoint.size);
        Self { key, anchors: anchors.into(), copies: copies.into(), starts: Vec::new(), anchored: None }
    }

    /// The newest anchor that agrees: its size, and the time of its last entry.
    pub(super) const fn anchored(&self) -> Option<(u64, Timestamp)> {
        self.anchored
    }

    /// A process began with this entry.
    pub(super) fn started(&mut self, index: u64) {
        self.starts.push(index);
    }

    /// Compares an entry with what sinks hold of it.
    pub(super) fn entry(
        &mut self,
        index: u64,
        leaf: Hash,
        whose: (Option<SessionId>, Option<u64>),
        findings: &mut Findings,
    ) {
        while let Some(copy) = self.copies.pop_front_if(|copy| copy.index <= index) {
            let (message, whose) = if copy.index < index {
                (format!("the sink has entry {}, which is not in the ledger", copy.index), (None, None))
            } else if copy.leaf != leaf {
                (format!("the sink's copy of entry {index} is another than the ledger's"), whose)
            } else {
                continue;
            };
            let finding = Finding::new("SINKDIFF", message).at(&copy.file, copy.offset);
            findings.push(finding.of(whose.0, whose.1));
        }
    }

    /// Compares with the anchors of the size that was just reached; `time` is that of the last entry.
    pub(super) fn reached(&mut self, tree: &Frontier, time: Timestamp, findings: &mut Findings) {
        while let Some(anchor) = self.anchors.pop_front_if(|anchor| anchor.checkpoint.size <= tree.size()) {
            let size = anchor.checkpoint.size;
            if self.is_of_another_key(anchor, findings) {
                continue;
            }
            if size == tree.size() && anchor.checkpoint.root == tree.root() {
                self.anchored = Some((size, time));
                continue;
            }
            let message = format!(
                "a checkpoint of {size} entries says otherwise than the ledger: there are two histories; see {}",
                anchor.file.display()
            );
            findings.push(Finding::new("FORK", message).at(&anchor.file, anchor.offset));
            let agreed = self.anchored.map_or(0, |(size, _)| size);
            let since = |start: &&u64| **start > 1 && (agreed..size).contains(*start);
            if let Some(start) = self.starts.iter().find(since) {
                let message = format!(
                    "the node went on at entry {start} from an older state than it had signed before"
                );
                findings.push(Finding::new("ROLLBACK", message).at(&anchor.file, anchor.offset));
            }
        }
    }

    /// Judges what the ledger, which has `size` entries, does not reach.
    pub(super) fn end(&mut self, size: u64, findings: &mut Findings) {
        let mut beyond: BTreeMap<_, (&Copied, u64)> = BTreeMap::new();
        for copy in std::mem::take(&mut self.copies) {
            beyond.entry(&copy.file).or_insert((copy, copy.index)).1 = copy.index;
        }
        for (first, last) in beyond.into_values() {
            let message =
                format!("the sink has entries {} to {last}, the ledger ends with {size}", first.index);
            findings.push(Finding::new("SINKDIFF", message).at(&first.file, first.offset));
        }
        for anchor in std::mem::take(&mut self.anchors) {
            if self.is_of_another_key(anchor, findings) {
                continue;
            }
            let had = anchor.checkpoint.size;
            let message = format!("the log had {had} entries, here are {size}: its end is cut off");
            findings.push(Finding::new("TRUNC", message).at(&anchor.file, anchor.offset));
        }
    }

    fn is_of_another_key(&self, anchor: &Anchor, findings: &mut Findings) -> bool {
        let signed = anchor.checkpoint.signed_by(self.key) == Signed::Good;
        if !signed {
            let size = anchor.checkpoint.size;
            let message = format!("the checkpoint of {size} entries is not signed by this log's key");
            findings.push(Finding::new("SIG", message).at(&anchor.file, anchor.offset));
        }
        !signed
    }
}

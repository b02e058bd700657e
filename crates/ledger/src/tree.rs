//! The hash tree of RFC 6962 section 2.1: leaves `SHA-256(0x00 ‖ entry)`, nodes `SHA-256(0x01 ‖ left ‖ right)`.

use crate::hash::{Hash, sha256};

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of two subtrees.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// A full subtree: `level` is the logarithm of its leaf count, `place` its number among those of its level.
pub type Node = (u32, u64);

/// The right edge of a growing tree: the roots of its full subtrees, at most 64, the largest first.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_seen(leaf, |_, _| {});
    }

    /// Adds a leaf, and shows every full subtree that it completes, itself first.
    pub fn push_seen(&mut self, leaf: Hash, mut seen: impl FnMut(Node, &Hash)) {
        let mut hash = leaf;
        let mut level = 0;
        seen((0, self.size), &hash);
        while self.size >> level & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            level += 1;
            seen((level, self.size >> level), &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(smallest) = peaks.next() else { return empty_root() };
        peaks.fold(*smallest, |right, left| node_hash(left, &right))
    }
}

/// The largest power of two below `size`, which must be at least 2.
const fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The root over the leaves `from..to`, which must be a range that the tree's own recursion arrives at. None where
/// `lookup` knows a full subtree of it not.
fn range_root(from: u64, to: u64, lookup: &mut impl FnMut(Node) -> Option<Hash>) -> Option<Hash> {
    let size = to.checked_sub(from).filter(|size| *size > 0)?;
    if size.is_power_of_two() {
        return lookup((size.trailing_zeros(), from / size));
    }
    let middle = from + split(size);
    let left = range_root(from, middle, lookup);
    let right = range_root(middle, to, lookup);
    Some(node_hash(&left?, &right?))
}

/// The proof that leaf `index` is in the tree of `size` leaves (RFC 6962 section 2.1.1). None where there is no such
/// leaf or `lookup` knows a subtree not; it is asked for all that are needed.
pub fn inclusion(index: u64, size: u64, mut lookup: impl FnMut(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range_root(middle, to, &mut lookup));
            to = middle;
        } else {
            path.push(range_root(from, middle, &mut lookup));
            from = middle;
        }
    }
    path.into_iter().rev().collect()
}

/// The proof that the tree of `old` leaves is a prefix of that of `size` (RFC 6962 section 2.1.2), as for
/// [`inclusion`]. Empty where nothing is to be proved.
pub fn consistency(old: u64, size: u64, mut lookup: impl FnMut(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    if old > size {
        return None;
    }
    if old == 0 || old == size {
        return Some(Vec::new());
    }
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range_root(middle, to, &mut lookup));
            to = middle;
        } else {
            path.push(range_root(from, middle, &mut lookup));
            from = middle;
        }
    }
    if from > 0 {
        path.push(range_root(from, to, &mut lookup));
    }
    path.into_iter().rev().collect()
}

/// The root that `proof` leads to from `leaf` at `index` of `size` (RFC 9162 section 2.1.3.2). None where the proof's
/// length can't be right.
pub fn inclusion_root(index: u64, size: u64, leaf: Hash, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut root = leaf;
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            root = node_hash(sibling, &root);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether `proof` shows that the tree of `old` leaves is a prefix of that of `size` (RFC 9162 section 2.1.4.2).
pub fn is_consistent(old: u64, old_root: Hash, size: u64, root: Hash, proof: &[Hash]) -> bool {
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    if old == 0 {
        return proof.is_empty() && old_root == empty_root();
    }
    if old > size {
        return false;
    }
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { Some(&old_root) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut place, mut last) = (old - 1, size - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut older, mut newer) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            older = node_hash(sibling, &older);
            newer = node_hash(sibling, &newer);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            newer = node_hash(&newer, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && older == old_root && newer == root
}

#[cfg(test)]
mod tests;

//! A map with a bound, which forgets what was not used for longest (roughly: by halves).

use std::collections::HashMap;
use std::hash::Hash;

/// At most `capacity` entries in two generations: when the young one holds half of them, the old one is dropped.
/// Every operation costs a constant, so that a flood of new keys costs no more than its share.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Bounded<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new() }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= (self.capacity / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_its_capacity() {
        let mut cache = Bounded::new(10);
        for key in 0..1000 {
            cache.insert(key, key);
            assert_eq!(cache.get(&key), Some(key));
            assert!(cache.young.len() + cache.old.len() <= 10);
        }
        assert_eq!(cache.get(&0), None);
        cache.remove(&999);
        assert_eq!(cache.get(&999), None);
    }

    #[test]
    fn what_is_used_stays() {
        let mut cache = Bounded::new(10);
        cache.insert(-1, 0);
        for key in 0..1000 {
            cache.insert(key, key);
            assert_eq!(cache.get(&-1), Some(0));
        }
    }
}

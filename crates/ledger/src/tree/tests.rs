use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::hash::hex;

fn entries(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(format!(r#"{{"v":1,"idx":{index}}}"#).as_bytes())).collect()
}

fn grown(leaves: &[Hash]) -> (Frontier, HashMap<Node, Hash>) {
    let (mut frontier, mut nodes) = (Frontier::default(), HashMap::new());
    for leaf in leaves {
        frontier.push_seen(*leaf, |node, hash| {
            nodes.insert(node, *hash);
        });
    }
    (frontier, nodes)
}

/// The definition of RFC 6962, word for word.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let middle = leaves.len().next_power_of_two() / 2;
            node_hash(&naive(&leaves[..middle]), &naive(&leaves[middle..]))
        }
    }
}

#[test]
fn matches_the_published_vectors() {
    let leaves = entries(5);
    assert_eq!(hex(&leaves[0]), "b0909fa53606c6418a5ce84d27ae92e35367770ed5106d9627c08340c02fefb0");
    assert_eq!(hex(&leaves[2]), "18cba2e483c2a0cabf79882463aeff041d5a401c4aee73b9162df2ed28b4195e");
    for (count, root) in [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (2, "d5a15a21d8550274ea28b700e9ae6f7a8599ecbf3e3911ca4b31de320122aaf0"),
        (3, "9604167edd2c631f0daa8ca457a21bfee87a437040379f5fd64b7aafd902407d"),
        (5, "4043c84ad272ed75263f507415d9e4a7f0c921b7e32999ddea4a501a13bdc96c"),
    ] {
        assert_eq!(hex(&grown(&leaves[..count]).0.root()), root, "{count} leaves");
    }
    let (_, nodes) = grown(&leaves);
    let prefixes = |proof: Option<Vec<Hash>>| {
        proof.unwrap().iter().map(|hash| hex(&hash[..8])).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        prefixes(inclusion(2, 5, |node| nodes.get(&node).copied())),
        "02fda9fe57562d23 d5a15a21d8550274 4924c1a4253f7403"
    );
    assert_eq!(
        prefixes(consistency(3, 5, |node| nodes.get(&node).copied())),
        "18cba2e483c2a0ca 02fda9fe57562d23 d5a15a21d8550274 4924c1a4253f7403"
    );
}

proptest! {
    #[test]
    fn roots_and_proofs_agree_with_the_definition(size in 1_u64..130, place in any::<u64>(), old in any::<u64>()) {
        let leaves = entries(size);
        let (frontier, nodes) = grown(&leaves);
        let lookup = |node| nodes.get(&node).copied();
        let root = naive(&leaves);
        prop_assert_eq!(frontier.root(), root);

        let index = place % size;
        let leaf = leaves[usize::try_from(index).unwrap()];
        let proof = inclusion(index, size, lookup).unwrap();
        prop_assert_eq!(inclusion_root(index, size, leaf, &proof), Some(root));
        let other = (index + 1) % size;
        prop_assert!(size == 1 || inclusion_root(other, size, leaf, &proof) != Some(root));

        let old = old % (size + 1);
        let old_root = naive(&leaves[..usize::try_from(old).unwrap()]);
        let mut proof = consistency(old, size, lookup).unwrap();
        prop_assert!(is_consistent(old, old_root, size, root, &proof));
        prop_assert!(old == 0 || old == size || !is_consistent(old, root, size, root, &proof));
        proof.push(root);
        prop_assert!(!is_consistent(old, old_root, size, root, &proof));
    }
}

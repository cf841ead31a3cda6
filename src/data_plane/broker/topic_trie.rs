//! Topic → filters, by a trie over levels (MQTT 5.0, 4.7).
//!
//! One table of edges for the whole trie, keyed by (parent, level), so that a million filters of
//! their own cost a node each and no map each.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use slab::Slab;
use smallvec::{SmallVec, smallvec};

use crate::model::FilterId;

/// The trie. Filters are patterns: `$share/{group}/` is already taken off.
#[derive(Debug)]
pub struct TopicTrie {
    nodes: Slab<Node>,
    /// Children by name; holds node indices, keyed by the node's (parent, level).
    edges: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    level: Box<str>,
    /// The child for `+`.
    any: Option<u32>,
    /// The filter that ends here.
    here: Option<FilterId>,
    /// The filter that ends in `#` below here.
    below: Option<FilterId>,
    /// Children by name; `any` not counted.
    named_children: u32,
}

impl Node {
    fn new(parent: u32, level: &str) -> Self {
        Self { parent, level: level.into(), any: None, here: None, below: None, named_children: 0 }
    }

    fn is_bare(&self) -> bool {
        self.any.is_none() && self.here.is_none() && self.below.is_none() && self.named_children == 0
    }
}

const ROOT: u32 = 0;

impl TopicTrie {
    /// An empty trie.
    pub fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(ROOT, ""));
        Self { nodes, edges: HashTable::new(), hasher: foldhash::fast::RandomState::default() }
    }

    /// Puts `filter` at `pattern`, which must be free.
    pub fn insert(&mut self, pattern: &str, filter: FilterId) {
        let mut at = ROOT;
        for level in pattern.split('/') {
            match level {
                "#" => {
                    self.nodes[at as usize].below = Some(filter);
                    return;
                }
                "+" => at = self.any_child(at),
                name => at = self.named_child(at, name),
            }
        }
        self.nodes[at as usize].here = Some(filter);
    }

    /// The filter at exactly this pattern.
    pub fn get(&self, pattern: &str) -> Option<FilterId> {
        let mut at = ROOT;
        for level in pattern.split('/') {
            at = match level {
                "#" => return self.nodes[at as usize].below,
                "+" => self.nodes[at as usize].any?,
                name => self.find(at, name)?,
            };
        }
        self.nodes[at as usize].here
    }

    /// Takes the filter at `pattern` out, and the nodes that led only to it.
    pub fn remove(&mut self, pattern: &str) {
        let mut at = ROOT;
        let mut ends_below = false;
        for level in pattern.split('/') {
            let next = match level {
                "#" => {
                    ends_below = true;
                    break;
                }
                "+" => self.nodes[at as usize].any,
                name => self.find(at, name),
            };
            let Some(next) = next else { return };
            at = next;
        }
        let node = &mut self.nodes[at as usize];
        if ends_below {
            node.below = None;
        } else {
            node.here = None;
        }
        self.prune(at);
    }

    /// Appends every filter that matches `topic`; each once, in no order.
    pub fn matches(&self, topic: &str, out: &mut Vec<FilterId>) {
        // [MQTT-4.7.2-1]: no wildcard in the first place meets a topic that begins with $.
        let reserved = topic.starts_with('$');
        let mut frontier: SmallVec<[u32; 16]> = smallvec![ROOT];
        let mut next: SmallVec<[u32; 16]> = SmallVec::new();
        let mut first = true;
        for level in topic.split('/') {
            for at in frontier.drain(..) {
                let node = &self.nodes[at as usize];
                if !(first && reserved) {
                    out.extend(node.below);
                    next.extend(node.any);
                }
                if node.named_children > 0 {
                    next.extend(self.find(at, level));
                }
            }
            std::mem::swap(&mut frontier, &mut next);
            if frontier.is_empty() {
                return;
            }
            first = false;
        }
        for at in frontier {
            // [MQTT-4.7.1-2]: `sport/#` includes `sport` itself.
            let node = &self.nodes[at as usize];
            out.extend(node.here);
            out.extend(node.below);
        }
    }

    fn hash(&self, parent: u32, level: &str) -> u64 {
        self.hasher.hash_one((parent, level))
    }

    fn find(&self, parent: u32, level: &str) -> Option<u32> {
        let same = |child: &u32| {
            let node = &self.nodes[*child as usize];
            node.parent == parent && *node.level == *level
        };
        self.edges.find(self.hash(parent, level), same).copied()
    }

    fn named_child(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(child) = self.find(parent, level) {
            return child;
        }
        let child = self.new_node(parent, level);
        self.nodes[parent as usize].named_children += 1;
        let hash = self.hash(parent, level);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.edges.insert_unique(hash, child, |index| {
            let node = &nodes[*index as usize];
            hasher.hash_one((node.parent, &*node.level))
        });
        child
    }

    fn any_child(&mut self, parent: u32) -> u32 {
        if let Some(child) = self.nodes[parent as usize].any {
            return child;
        }
        let child = self.new_node(parent, "+");
        self.nodes[parent as usize].any = Some(child);
        child
    }

    fn new_node(&mut self, parent: u32, level: &str) -> u32 {
        // A node is at least 40 bytes: memory ends long before u32 does.
        u32::try_from(self.nodes.insert(Node::new(parent, level))).expect("fewer than 2^32 trie nodes")
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let parent = self.nodes[at as usize].parent;
            if self.nodes[parent as usize].any == Some(at) {
                self.nodes[parent as usize].any = None;
            } else {
                let hash = self.hash(parent, &self.nodes[at as usize].level);
                if let Ok(edge) = self.edges.find_entry(hash, |child| *child == at) {
                    edge.remove();
                }
                self.nodes[parent as usize].named_children -= 1;
            }
            self.nodes.remove(at as usize);
            at = parent;
        }
    }
}

impl Default for TopicTrie {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{TopicFilter, TopicName};

    fn matched(trie: &TopicTrie, topic: &str) -> Vec<u32> {
        let mut out = Vec::new();
        trie.matches(topic, &mut out);
        let mut ids: Vec<u32> = out.iter().map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_emptied_trie_holds_nothing() {
        let mut trie = TopicTrie::new();
        let patterns = ["a/b/c", "a/+/c", "a/#", "#", "+", "a", "/", ""];
        for (id, pattern) in (0..).zip(patterns) {
            trie.insert(pattern, FilterId(id));
        }
        for pattern in patterns {
            trie.remove(pattern);
            assert_eq!(trie.get(pattern), None);
        }
        assert_eq!(trie.nodes.len(), 1);
        assert!(trie.edges.is_empty());
        assert_eq!(matched(&trie, "a/b/c"), Vec::<u32>::new());
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), Just("a".into()), Just("b".into()), Just("$x".into())]
    }

    fn pattern() -> impl Strategy<Value = String> {
        let wild = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (prop::collection::vec(wild, 1..5), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn agrees_with_matching_each_filter_alone(
            patterns in prop::collection::btree_set(pattern(), 1..20),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..6), 1..10),
        ) {
            let mut filters: Vec<(u32, TopicFilter)> = (0..)
                .zip(patterns.iter().filter_map(|p| TopicFilter::new(p).ok()))
                .collect();
            prop_assume!(!filters.is_empty());
            let mut trie = TopicTrie::new();
            for (id, filter) in &filters {
                trie.insert(filter.pattern(), FilterId(*id));
            }
            for index in removed {
                if !filters.is_empty() {
                    let (_, filter) = filters.remove(index.index(filters.len()));
                    trie.remove(filter.pattern());
                }
            }
            for levels in topics {
                let text = levels.join("/");
                let Ok(topic) = TopicName::new(text.as_str()) else { continue };
                let want: Vec<u32> =
                    filters.iter().filter(|(_, f)| f.matches(&topic)).map(|(id, _)| *id).collect();
                prop_assert_eq!(matched(&trie, &text), want, "topic {}", text);
            }
        }
    }
}

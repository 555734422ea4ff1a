//! Filters of publications by their tags: what a client asks for with its subscription.
//!
//! A leaf compares one tag; nodes join leaves with `and`, `or` and `not`. A missing tag compares false, but for `neq`, `nin` and
//! `nex`. `lt`, `lte`, `gt` and `gte` compare decimal numbers, exactly and of any length; what is no number compares false.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::message::FilterNode;

/// Nodes and values of one filter, at most: it is kept for each subscription and asked for each publication.
pub const MAX_NODES: usize = 100;

/// A filter that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every one of these.
    And(Box<[Filter]>),
    /// Any of these.
    Or(Box<[Filter]>),
    /// The opposite.
    Not(Box<Filter>),
    /// One tag.
    Tag(Box<str>, Comparison),
}

/// What is asked of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// `ex`: it is there.
    Exists,
    /// `nex`: it is not.
    Missing,
    /// `eq`.
    Equal(Box<str>),
    /// `neq`, or it is missing.
    Different(Box<str>),
    /// `in`: one of these.
    In(Box<[Box<str>]>),
    /// `nin`: none of these, or it is missing.
    NotIn(Box<[Box<str>]>),
    /// `sw`.
    StartsWith(Box<str>),
    /// `ew`.
    EndsWith(Box<str>),
    /// `ct`.
    Contains(Box<str>),
    /// `lt`, `lte`, `gt`, `gte`: a number whose order to this one is one of these.
    Number(Box<str>, &'static [Ordering]),
}

/// Why a filter cannot be used: error 107.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No such operation.
    #[error("op is none of and, or, not, or empty for a comparison")]
    Operation,
    /// No such comparison.
    #[error("cmp is none of eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt, gte")]
    Comparison,
    /// A comparison without a key, or with values that it does not take.
    #[error("a comparison takes a key, and val, vals or neither, as its cmp says")]
    Values,
    /// `and` and `or` take one node or more, `not` exactly one; a comparison none.
    #[error("the number of nodes does not fit the op")]
    Nodes,
    /// More than [`MAX_NODES`].
    #[error("a filter has at most {MAX_NODES} nodes and values")]
    TooLarge,
}

impl Filter {
    /// Checks a filter.
    ///
    /// # Errors
    /// What is wrong with it. It is no deeper than what the decoders let through.
    pub fn new(node: &FilterNode) -> Result<Self, FilterError> {
        if size(node) > MAX_NODES {
            return Err(FilterError::TooLarge);
        }
        Self::build(node)
    }

    fn build(node: &FilterNode) -> Result<Self, FilterError> {
        let inner = !node.op.is_empty();
        let compares = !(node.key.is_empty() && node.cmp.is_empty() && node.val.is_empty() && node.vals.is_empty());
        if inner && (compares || node.nodes.is_empty()) || !inner && !node.nodes.is_empty() {
            return Err(FilterError::Nodes);
        }
        let nodes = || node.nodes.iter().map(Self::build).collect::<Result<Box<[_]>, _>>();
        match node.op.as_str() {
            "" => Ok(Self::Tag(node.key.as_str().into(), Comparison::new(node)?)),
            "and" => Ok(Self::And(nodes()?)),
            "or" => Ok(Self::Or(nodes()?)),
            "not" => match &node.nodes[..] {
                [only] => Ok(Self::Not(Box::new(Self::build(only)?))),
                _ => Err(FilterError::Nodes),
            },
            _ => Err(FilterError::Operation),
        }
    }

    /// Whether a publication with these tags passes.
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(tags)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(tags)),
            Self::Not(node) => !node.matches(tags),
            Self::Tag(key, comparison) => comparison.holds(tags.get(&**key).map(String::as_str)),
        }
    }
}

fn size(node: &FilterNode) -> usize {
    1 + node.vals.len() + node.nodes.iter().map(size).sum::<usize>()
}

impl Comparison {
    fn new(node: &FilterNode) -> Result<Self, FilterError> {
        let takes = |val: bool, vals: bool| {
            let fits = val || node.val.is_empty();
            let fits = fits && vals != node.vals.is_empty();
            if node.key.is_empty() || !fits { Err(FilterError::Values) } else { Ok(()) }
        };
        let value = || takes(true, false).map(|()| Box::from(node.val.as_str()));
        let values = || takes(false, true).map(|()| node.vals.iter().map(|value| value.as_str().into()).collect());
        let number = |orders| {
            let value = value()?;
            if Decimal::new(&value).is_some() { Ok(Self::Number(value, orders)) } else { Err(FilterError::Values) }
        };
        match node.cmp.as_str() {
            "ex" => takes(false, false).map(|()| Self::Exists),
            "nex" => takes(false, false).map(|()| Self::Missing),
            "eq" => value().map(Self::Equal),
            "neq" => value().map(Self::Different),
            "in" => values().map(Self::In),
            "nin" => values().map(Self::NotIn),
            "sw" => value().map(Self::StartsWith),
            "ew" => value().map(Self::EndsWith),
            "ct" => value().map(Self::Contains),
            "lt" => number(&[Ordering::Less]),
            "lte" => number(&[Ordering::Less, Ordering::Equal]),
            "gt" => number(&[Ordering::Greater]),
            "gte" => number(&[Ordering::Greater, Ordering::Equal]),
            _ => Err(FilterError::Comparison),
        }
    }

    fn holds(&self, tag: Option<&str>) -> bool {
        let Some(tag) = tag else {
            return matches!(self, Self::Missing | Self::Different(_) | Self::NotIn(_));
        };
        match self {
            Self::Exists => true,
            Self::Missing => false,
            Self::Equal(value) => tag == &**value,
            Self::Different(value) => tag != &**value,
            Self::In(values) => values.iter().any(|value| tag == &**value),
            Self::NotIn(values) => values.iter().all(|value| tag != &**value),
            Self::StartsWith(value) => tag.starts_with(&**value),
            Self::EndsWith(value) => tag.ends_with(&**value),
            Self::Contains(value) => tag.contains(&**value),
            Self::Number(value, orders) => match (Decimal::new(tag), Decimal::new(value)) {
                (Some(tag), Some(value)) => orders.contains(&tag.order(&value)),
                _ => false,
            },
        }
    }
}

/// A decimal number as it is written: `-12.50`.
#[derive(Debug, Clone, Copy)]
struct Decimal<'a> {
    negative: bool,
    /// Without zeros in front.
    whole: &'a str,
    /// Without zeros behind.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    fn new(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || fraction.is_some_and(|fraction| !all_digits(fraction)) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.unwrap_or_default().trim_end_matches('0'));
        // There is one zero.
        Some(Self { negative: negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction })
    }

    fn order(&self, other: &Self) -> Ordering {
        let sizes = || {
            let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(other.whole));
            whole.then_with(|| self.fraction.cmp(other.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => sizes(),
            (true, true) => sizes().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(key: &str, cmp: &str, val: &str) -> FilterNode {
        FilterNode { key: key.into(), cmp: cmp.into(), val: val.into(), ..FilterNode::default() }
    }

    fn list(key: &str, cmp: &str, vals: &[&str]) -> FilterNode {
        let vals = vals.iter().map(|val| (*val).to_owned()).collect();
        FilterNode { key: key.into(), cmp: cmp.into(), vals, ..FilterNode::default() }
    }

    fn inner(op: &str, nodes: Vec<FilterNode>) -> FilterNode {
        FilterNode { op: op.into(), nodes, ..FilterNode::default() }
    }

    fn passes(node: &FilterNode) -> bool {
        let tags = [("lang", "de"), ("price", "12.50"), ("big", "100000000000000000000000.1")];
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Filter::new(node).unwrap().matches(&tags)
    }

    #[test]
    fn each_comparison_does_what_its_name_says() {
        let holds = [
            leaf("lang", "eq", "de"),
            leaf("lang", "neq", "fr"),
            leaf("lang", "ex", ""),
            leaf("no", "nex", ""),
            leaf("lang", "sw", "d"),
            leaf("lang", "ew", "e"),
            leaf("lang", "ct", "de"),
            leaf("price", "lt", "12.51"),
            leaf("price", "lte", "12.5"),
            leaf("price", "gte", "12.500"),
            leaf("price", "gt", "-99999"),
            list("lang", "in", &["fr", "de"]),
            list("lang", "nin", &["fr"]),
            leaf("big", "gt", "100000000000000000000000"),
        ];
        for node in &holds {
            assert!(passes(node), "{node:?}");
            assert!(!passes(&inner("not", vec![node.clone()])), "{node:?}");
        }
    }

    #[test]
    fn a_missing_tag_is_false_but_for_the_negative_ones() {
        let negative = [leaf("no", "neq", "x"), list("no", "nin", &["x"]), leaf("no", "nex", "")];
        assert!(negative.iter().all(passes));
        let others = ["eq", "sw", "ew", "ct"].map(|cmp| leaf("no", cmp, "x"));
        assert!(!others.iter().any(passes) && !passes(&leaf("no", "lt", "1")) && !passes(&leaf("no", "ex", "")));
        assert!(
            !passes(&leaf("lang", "lt", "1")) && !passes(&leaf("lang", "gte", "1")),
            "what is no number is not below one"
        );
    }

    #[test]
    fn nodes_join() {
        let (yes, no) = (leaf("lang", "eq", "de"), leaf("lang", "eq", "fr"));
        assert!(passes(&inner("and", vec![yes.clone(), yes.clone()])));
        assert!(!passes(&inner("and", vec![yes.clone(), no.clone()])));
        assert!(passes(&inner("or", vec![no.clone(), yes.clone()])));
        assert!(!passes(&inner("or", vec![no.clone(), no.clone()])));
        assert!(passes(&inner("not", vec![inner("or", vec![no.clone(), no])])));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let yes = || leaf("a", "eq", "b");
        for (node, error) in [
            (inner("xor", vec![yes()]), FilterError::Operation),
            (inner("and", vec![]), FilterError::Nodes),
            (inner("not", vec![yes(), yes()]), FilterError::Nodes),
            (FilterNode { nodes: vec![yes()], ..yes() }, FilterError::Nodes),
            (FilterNode { op: "and".into(), nodes: vec![yes()], ..yes() }, FilterError::Nodes),
            (leaf("a", "like", "b"), FilterError::Comparison),
            (leaf("", "eq", "b"), FilterError::Values),
            (leaf("a", "ex", "b"), FilterError::Values),
            (leaf("a", "in", "b"), FilterError::Values),
            (list("a", "eq", &["b"]), FilterError::Values),
            (list("a", "in", &[]), FilterError::Values),
            (leaf("a", "lt", "many"), FilterError::Values),
            (list("a", "in", &["b"; MAX_NODES]), FilterError::TooLarge),
            (inner("or", vec![yes(); MAX_NODES]), FilterError::TooLarge),
        ] {
            assert_eq!(Filter::new(&node), Err(error), "{node:?}");
        }
    }

    #[test]
    fn only_plain_decimals_are_numbers() {
        for number in ["0", "-0", "+1", "007", "1.0", "-12.50"] {
            assert!(Decimal::new(number).is_some(), "{number}");
        }
        for other in ["", "-", ".5", "1.", "1e3", "1.2.3", " 1", "0x1", "--1", "Infinity"] {
            assert!(Decimal::new(other).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn numbers_compare_as_numbers(one in -1_000_000_i64..1_000_000, other in -1_000_000_i64..1_000_000) {
            let text = |n: i64| format!("{}{}.{:03}", if n < 0 { "-" } else { "" }, n.abs() / 1000, n.abs() % 1000);
            let (a, b) = (text(one), text(other));
            prop_assert_eq!(Decimal::new(&a).unwrap().order(&Decimal::new(&b).unwrap()), one.cmp(&other));
        }
    }
}

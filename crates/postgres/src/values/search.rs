//! Full text search: `tsvector` and `tsquery`.

use std::fmt::Write as _;

use super::Reader;

/// How many nodes of a query are printed. Each joins texts, so that this bounds the work.
const NODES_MAX: usize = 4096;

fn lexeme(out: &mut String, text: &str) {
    out.push('\'');
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            out.push(char);
        }
        out.push(char);
    }
    out.push('\'');
}

/// Lexemes, each with its positions; a position's upper two bits are its weight, D to A.
pub(super) fn vector(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let count = usize::try_from(input.i32()?).ok()?;
    for place in 0..count {
        if place > 0 {
            out.push(' ');
        }
        lexeme(out, input.string()?);
        for place in 0..input.u16()? {
            let position = input.u16()?;
            let separator = if place == 0 { ':' } else { ',' };
            let weight = match position >> 14 {
                0 => "",
                1 => "C",
                2 => "B",
                _ => "A",
            };
            write!(out, "{separator}{}{weight}", position & 0x3fff).ok()?;
        }
    }
    Some(())
}

/// A node of a query, in the order of how tightly it binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Or,
    And,
    Phrase(u16),
    Not,
    Lexeme,
}

impl Node {
    const fn binding(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Phrase(_) => 3,
            Self::Not => 4,
            Self::Lexeme => 5,
        }
    }
}

/// Nodes in prefix order, the right operand before the left. Read backwards they are postfix, which a stack prints
/// without recursion.
pub(super) fn query(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let count = usize::try_from(input.i32()?).ok().filter(|count| *count <= NODES_MAX)?;
    let nodes = (0..count).map(|_| node(input)).collect::<Option<Vec<_>>>()?;
    let mut stack: Vec<(String, Node)> = Vec::new();
    for (text, node) in nodes.into_iter().rev() {
        let text = match node {
            Node::Lexeme => text,
            Node::Not => format!("!{}", operand(stack.pop()?, node, false)),
            Node::Or | Node::And | Node::Phrase(_) => {
                let right = operand(stack.pop()?, node, true);
                let mut text = operand(stack.pop()?, node, false);
                match node {
                    Node::Or => text.push_str(" | "),
                    Node::Phrase(1) => text.push_str(" <-> "),
                    Node::Phrase(distance) => write!(text, " <{distance}> ").ok()?,
                    _ => text.push_str(" & "),
                }
                text.push_str(&right);
                text
            }
        };
        stack.push((text, node));
    }
    match stack.pop() {
        Some((text, _)) => out.push_str(&text),
        None if count == 0 => {}
        None => return None,
    }
    stack.is_empty().then_some(())
}

/// An operand's text, in parentheses where it binds less tightly, or is the phrase to the right of a phrase.
fn operand((text, node): (String, Node), parent: Node, right: bool) -> String {
    let phrases = right && matches!((node, parent), (Node::Phrase(_), Node::Phrase(_)));
    match node.binding() < parent.binding() || phrases {
        true => format!("( {text} )"),
        false => text,
    }
}

fn node(input: &mut Reader<'_>) -> Option<(String, Node)> {
    let mut text = String::new();
    let node = match input.u8()? {
        1 => {
            let (weights, prefix) = (input.u8()?, input.u8()?);
            if weights > 0xf {
                return None;
            }
            lexeme(&mut text, input.string()?);
            if weights != 0 || prefix != 0 {
                text.push(':');
            }
            if prefix != 0 {
                text.push('*');
            }
            let named = [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')];
            text.extend(named.iter().filter(|(bit, _)| weights & bit != 0).map(|(_, name)| name));
            Node::Lexeme
        }
        2 => match input.u8()? {
            1 => Node::Not,
            2 => Node::And,
            3 => Node::Or,
            4 => Node::Phrase(input.u16()?),
            _ => return None,
        },
        _ => return None,
    };
    Some((text, node))
}

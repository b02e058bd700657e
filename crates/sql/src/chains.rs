//! How deep a syntax tree may get, judged by its tokens.
//!
//! The parser limits its own recursion, but makes chains of operators in a loop: `1 + 1 + 1 …` becomes a tree as deep as
//! it has signs, and dropping that recurses. So what is too long is not parsed at all.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

const BRACKETS_MAX: usize = 32;
const CHAIN_MAX: usize = 512;

/// Whether the tree of these tokens is sure to be shallow.
pub(crate) fn are_bounded(tokens: &[Token]) -> bool {
    // Operators on the way down to here, and for each open bracket what was there before it.
    let mut chain = 0_usize;
    let mut outside: Vec<usize> = Vec::new();
    let mut set_operations = 0_usize;
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                outside.push(chain);
                // The bracket may be an operator itself: a call, a subscript.
                chain += 1;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                // A subscript or a cast to what follows continues the chain that the bracket stands in.
                chain = outside.pop().unwrap_or(chain) + 1;
            }
            // The next item of a list begins where the list did.
            Token::Comma => chain = outside.last().map_or(0, |before| before + 1),
            Token::SemiColon => chain = 0,
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => set_operations += 1,
                keyword => chain += usize::from(binds(keyword)),
            },
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::Placeholder(_) => {}
            // Every sign else may be an operator.
            _ => chain += 1,
        }
        if outside.len() > BRACKETS_MAX || chain + set_operations > CHAIN_MAX {
            return false;
        }
    }
    true
}

/// Whether a word may join expressions. Those named here do not, and are frequent; of the others it does not matter.
const fn binds(keyword: Keyword) -> bool {
    !matches!(
        keyword,
        Keyword::NoKeyword
            | Keyword::NULL
            | Keyword::TRUE
            | Keyword::FALSE
            | Keyword::DEFAULT
            | Keyword::VALUES
            | Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::AS
            | Keyword::CASE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::END
    )
}

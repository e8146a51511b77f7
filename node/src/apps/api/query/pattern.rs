//! Regular expressions of JavaScript, for the crate `regex`, which matches in linear time.
//!
//! What that cannot do (look-around, backreferences) is refused by name. Differences that remain:
//! matching is by characters rather than UTF-16 code units, so that `.` takes a whole emoji; with
//! the flag `m` only a line feed ends a line; the flag `i` folds case as Unicode does.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use super::{QueryError, Work};

/// Of a compiled expression, and of what matching it may add.
const MAX_COMPILED_BYTES: usize = 64 * 1024;

/// Of one that counts as small.
const SMALL_BYTES: usize = 8 * 1024;

/// What a byte costs that an expression looks at. That is less than one step for most, but where
/// states do not fit into the cache, all those of the expression may be looked at for each byte.
const SMALL_STEPS: usize = 8;
const LARGE_STEPS: usize = 64;

/// Groups inside one another.
const MAX_NESTING: u32 = 32;

/// A regular expression that is compiled.
#[derive(Debug)]
pub(super) struct Expression {
    regex: Regex,
    steps_per_byte: usize,
}

impl Expression {
    pub(super) fn is_match(&self, text: &str, work: &Work) -> bool {
        work.spend(text.len().saturating_mul(self.steps_per_byte)) && self.regex.is_match(text)
    }
}

pub(super) fn compile(source: &str, flags: &str) -> Result<Expression, QueryError> {
    let flags = Flags::parse(flags)?;
    let mut translation =
        Translation { flags, chars: source.chars().peekable(), out: String::new() };
    translation.run().map_err(|error| QueryError::Regex(error.to_owned()))?;
    let build = |size_limit_bytes| {
        RegexBuilder::new(&translation.out)
            .case_insensitive(flags.ignore_case)
            .size_limit(size_limit_bytes)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .nest_limit(MAX_NESTING)
            .build()
    };
    if let Ok(regex) = build(SMALL_BYTES) {
        return Ok(Expression { regex, steps_per_byte: SMALL_STEPS });
    }
    let large = build(MAX_COMPILED_BYTES).map_err(|error| QueryError::Regex(reason(&error)))?;
    Ok(Expression { regex: large, steps_per_byte: LARGE_STEPS })
}

/// The crate's message ends in its reason; before it comes the translated expression.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[derive(Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multiline: bool,
    dot_all: bool,
    unicode: bool,
}

impl Flags {
    fn parse(text: &str) -> Result<Self, QueryError> {
        let mut flags = Self::default();
        for char in text.chars() {
            let flag = match char {
                'i' => &mut flags.ignore_case,
                'm' => &mut flags.multiline,
                's' => &mut flags.dot_all,
                'u' => &mut flags.unicode,
                // `g` and `y` would make a match depend on the one before it.
                other => return Err(QueryError::Regex(format!("flag {other:?} is not supported"))),
            };
            if std::mem::replace(flag, true) {
                return Err(QueryError::Regex(format!("flag {char:?} is given twice")));
            }
        }
        Ok(flags)
    }
}

struct Translation<'a> {
    flags: Flags,
    chars: Peekable<Chars<'a>>,
    out: String,
}

/// One member of a class: a character, or a set of them as Rust writes it inside brackets.
enum Atom {
    Char(char),
    Set(&'static str),
    Property(String),
}

const DIGITS: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";
const NO_DIGITS: &str = "[^0-9]";
const NO_WORD: &str = "[^0-9A-Za-z_]";
const NO_SPACE: &str = r"[^\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}]";

const LOOK_AROUND: &str = "look-around is not supported";
const BACKREFERENCE: &str = "backreferences are not supported";

impl Translation<'_> {
    fn run(&mut self) -> Result<(), &'static str> {
        while let Some(char) = self.chars.next() {
            match char {
                '\\' => self.escape()?,
                '(' => self.group()?,
                '[' => self.class()?,
                '.' if self.flags.dot_all => self.out.push_str("(?s:.)"),
                '.' => self.out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
                '^' if self.flags.multiline => self.out.push_str("(?m:^)"),
                '^' => self.out.push_str(r"\A"),
                '$' if self.flags.multiline => self.out.push_str("(?m:$)"),
                '$' => self.out.push_str(r"\z"),
                '{' => self.brace(),
                '|' | ')' | '*' | '+' | '?' => self.out.push(char),
                literal => self.literal(literal),
            }
        }
        Ok(())
    }

    fn literal(&mut self, char: char) {
        self.out.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
    }

    /// A quantifier, or a brace that is none and stands for itself.
    fn brace(&mut self) {
        let rest: String = self.chars.clone().take_while(|char| *char != '}').collect();
        let (least, most) = rest.split_once(',').unwrap_or((&rest, ""));
        let is_number = |text: &str| text.chars().all(|char| char.is_ascii_digit());
        let is_closed = self.chars.clone().nth(rest.chars().count()) == Some('}');
        if !is_closed || least.is_empty() || !is_number(least) || !is_number(most) {
            return self.literal('{');
        }
        self.out.push('{');
        self.out.push_str(&rest);
        self.out.push('}');
        self.chars.nth(rest.chars().count());
    }

    /// Nothing is captured, for it is only asked whether a text matches.
    fn group(&mut self) -> Result<(), &'static str> {
        self.out.push_str("(?:");
        if self.chars.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        match (self.chars.next(), self.chars.peek()) {
            (Some(':'), _) => Ok(()),
            (Some('=' | '!'), _) | (Some('<'), Some('=' | '!')) => Err(LOOK_AROUND),
            (Some('<'), _) => {
                let named = self.chars.by_ref().take_while(|char| *char != '>').count() > 0;
                if named { Ok(()) } else { Err("a group's name is missing") }
            }
            _ => Err("invalid group"),
        }
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        match self.chars.peek() {
            Some('b') => self.out.push_str(r"(?-u:\b)"),
            Some('B') => self.out.push_str(r"(?-u:\B)"),
            Some('1'..='9' | 'k') => return Err(BACKREFERENCE),
            _ => {
                match self.atom_escape()? {
                    Atom::Char(char) => self.literal(char),
                    Atom::Set(set) if set.starts_with('[') => self.out.push_str(set),
                    Atom::Set(set) => {
                        self.out.push('[');
                        self.out.push_str(set);
                        self.out.push(']');
                    }
                    Atom::Property(property) => self.out.push_str(&property),
                }
                return Ok(());
            }
        }
        self.chars.next();
        Ok(())
    }

    /// What a backslash makes of what follows, inside and outside of classes.
    fn atom_escape(&mut self) -> Result<Atom, &'static str> {
        let char = self.chars.next().ok_or("it ends in a backslash")?;
        Ok(match char {
            'd' => Atom::Set(DIGITS),
            'D' => Atom::Set(NO_DIGITS),
            'w' => Atom::Set(WORD),
            'W' => Atom::Set(NO_WORD),
            's' => Atom::Set(SPACE),
            'S' => Atom::Set(NO_SPACE),
            't' => Atom::Char('\t'),
            'n' => Atom::Char('\n'),
            'r' => Atom::Char('\r'),
            'f' => Atom::Char('\x0c'),
            'v' => Atom::Char('\x0b'),
            '0' if !self.chars.peek().is_some_and(char::is_ascii_digit) => Atom::Char('\0'),
            '0'..='9' => return Err("octal escapes are not supported"),
            'c' => match self.chars.next() {
                Some(letter) if letter.is_ascii_alphabetic() => {
                    Atom::Char(char::from(letter as u8 & 0x1f))
                }
                _ => return Err("invalid control character"),
            },
            'x' => Atom::Char(char::from_u32(self.hex(2)?).ok_or("invalid escape")?),
            'u' => Atom::Char(self.unicode_escape()?),
            'p' | 'P' if self.flags.unicode => Atom::Property(self.property(char)?),
            other => Atom::Char(other),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<u32, &'static str> {
        let mut value = 0;
        for _ in 0..digits {
            let digit = self.chars.next().and_then(|char| char.to_digit(16));
            value = value * 16 + digit.ok_or("invalid escape")?;
        }
        Ok(value)
    }

    /// `\uHHHH`, two of them for one character, or with the flag `u` also `\u{…}`.
    fn unicode_escape(&mut self) -> Result<char, &'static str> {
        if self.flags.unicode && self.chars.next_if_eq(&'{').is_some() {
            let digits: String = self.chars.by_ref().take_while(|char| *char != '}').collect();
            let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            return code.ok_or("invalid escape");
        }
        let unit = self.hex(4)?;
        let mut units = vec![unit as u16];
        if (0xd800..0xdc00).contains(&unit)
            && self.chars.next_if_eq(&'\\').is_some()
            && self.chars.next_if_eq(&'u').is_some()
        {
            units.push(self.hex(4)? as u16);
        }
        match char::decode_utf16(units).collect::<Result<Vec<_>, _>>().as_deref() {
            Ok([char]) => Ok(*char),
            _ => Err("half a character is not supported"),
        }
    }

    fn property(&mut self, kind: char) -> Result<String, &'static str> {
        if self.chars.next_if_eq(&'{').is_none() {
            return Err("invalid property");
        }
        let name: String = self.chars.by_ref().take_while(|char| *char != '}').collect();
        let is_name = |char: char| char.is_ascii_alphanumeric() || "_=".contains(char);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err("invalid property");
        }
        Ok(format!(r"\{kind}{{{name}}}"))
    }

    fn class(&mut self) -> Result<(), &'static str> {
        let is_negated = self.chars.next_if_eq(&'^').is_some();
        if self.chars.next_if_eq(&']').is_some() {
            // In JavaScript `[]` matches nothing, and `[^]` everything.
            let set = if is_negated { "(?s:.)" } else { r"[^\x00-\x{10FFFF}]" };
            self.out.push_str(set);
            return Ok(());
        }
        self.out.push_str(if is_negated { "[^" } else { "[" });
        loop {
            let first = match self.chars.next().ok_or("a class is not closed")? {
                ']' => break,
                char => self.member(char)?,
            };
            let mut ahead = self.chars.clone();
            let is_range =
                ahead.next() == Some('-') && ahead.next().is_some_and(|char| char != ']');
            if !is_range {
                self.push_member(first);
                continue;
            }
            self.chars.next();
            let last = self.chars.next().ok_or("a class is not closed")?;
            let last = self.member(last)?;
            self.range(first, last)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn range(&mut self, first: Atom, last: Atom) -> Result<(), &'static str> {
        if let (Atom::Char(first), Atom::Char(last)) = (&first, &last) {
            if first > last {
                return Err("a range of a class is out of order");
            }
            self.out.push_str(&format!(r"\x{{{:X}}}-\x{{{:X}}}", *first as u32, *last as u32));
            return Ok(());
        }
        // Next to a set the hyphen is one of the members.
        self.push_member(first);
        self.push_member(Atom::Char('-'));
        self.push_member(last);
        Ok(())
    }

    fn member(&mut self, char: char) -> Result<Atom, &'static str> {
        match (char, self.chars.peek()) {
            ('\\', Some('b')) => {
                self.chars.next();
                Ok(Atom::Char('\x08'))
            }
            ('\\', Some('-')) => {
                self.chars.next();
                Ok(Atom::Char('-'))
            }
            ('\\', Some('1'..='9')) => Err("octal escapes are not supported"),
            ('\\', _) => self.atom_escape(),
            (literal, _) => Ok(Atom::Char(literal)),
        }
    }

    fn push_member(&mut self, member: Atom) {
        match member {
            Atom::Char(char) => self.out.push_str(&format!(r"\x{{{:X}}}", char as u32)),
            Atom::Set(set) => self.out.push_str(set),
            Atom::Property(property) => self.out.push_str(&property),
        }
    }
}

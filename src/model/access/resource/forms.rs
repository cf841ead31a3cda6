//! Topics with gaps: the forms that resources and topic filters describe, and how they compare, byte by
//! byte.

use crate::model::TopicFilter;
use crate::model::access::AccessError;

/// A piece of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Byte(u8),
    /// One whole level.
    Level,
    /// Any bytes.
    Any,
    /// Nothing, or a slash and any bytes. Always the last.
    Below,
    ClientId,
    Username,
}

/// A piece of a topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Byte(u8),
    /// `+`
    Level,
    /// `#`
    Rest,
}

/// A topic filter, ready to be held against resources. `a/#` has two forms, `a` and `a/` with anything behind
/// it; all else has one.
#[derive(Clone, Debug)]
pub struct FilterShape(Vec<Box<[Piece]>>);

impl FilterShape {
    /// What `filter` asks for; of a shared subscription that is what its group asks for.
    pub fn new(filter: &TopicFilter) -> Self {
        let pattern = filter.pattern();
        let (body, open) = match pattern.strip_suffix('#') {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        let bytes = body.bytes().map(|byte| if byte == b'+' { Piece::Level } else { Piece::Byte(byte) });
        let mut pieces: Vec<Piece> = bytes.collect();
        let mut forms = Vec::with_capacity(2);
        if open {
            // [MQTT-4.7.1-2]: the parent level too. There is no empty topic.
            if pieces.len() > 1 {
                forms.push(pieces[..pieces.len() - 1].into());
            }
            pieces.push(Piece::Rest);
        }
        forms.push(pieces.into());
        Self(forms)
    }

    pub(super) fn forms(&self) -> impl Iterator<Item = &[Piece]> {
        self.0.iter().map(|form| &**form)
    }

    pub(super) fn is_wild(&self) -> bool {
        self.0.iter().any(|form| matches!(form.first(), Some(Piece::Level | Piece::Rest)))
    }

    /// Whether it asks for topics that begin with `$`.
    pub fn begins_with_dollar(&self) -> bool {
        self.0.iter().any(|form| form.first() == Some(&Piece::Byte(b'$')))
    }
}

/// The form of a resource.
pub(super) fn parse(text: &str) -> Result<Box<[Token]>, AccessError> {
    let levels = text.split('/').count();
    let mut tokens = Vec::with_capacity(text.len());
    for (at, level) in text.split('/').enumerate() {
        let is_last = at + 1 == levels;
        if is_last && matches!(level, "*" | "#") && !tokens.is_empty() {
            tokens.push(Token::Below);
            continue;
        }
        if at > 0 {
            tokens.push(Token::Byte(b'/'));
        }
        match level {
            "+" => tokens.push(Token::Level),
            "#" if is_last => tokens.push(Token::Any),
            level if level.contains('#') => return Err(AccessError::MultiLevelWildcard),
            level if level.contains('+') => return Err(AccessError::SingleLevelWildcard),
            level => parse_level(level, &mut tokens)?,
        }
    }
    Ok(tokens.into())
}

fn parse_level(mut level: &str, tokens: &mut Vec<Token>) -> Result<(), AccessError> {
    while let Some(first) = level.bytes().next() {
        if level.starts_with("${") {
            let (token, rest) = None
                .or_else(|| Some((Token::ClientId, level.strip_prefix("${clientid}")?)))
                .or_else(|| Some((Token::Username, level.strip_prefix("${username}")?)))
                .ok_or(AccessError::Variable)?;
            tokens.push(token);
            level = rest;
            continue;
        }
        if first != b'*' {
            tokens.extend(level.chars().next().into_iter().flat_map(bytes_of).map(Token::Byte));
        } else if tokens.last() != Some(&Token::Any) {
            tokens.push(Token::Any);
        }
        let mut rest = level.chars();
        rest.next();
        level = rest.as_str();
    }
    Ok(())
}

fn bytes_of(character: char) -> impl Iterator<Item = u8> {
    let mut buffer = [0; 4];
    let length = character.encode_utf8(&mut buffer).len();
    buffer.into_iter().take(length)
}

/// What a form is held against: the bytes of a topic, or the pieces of a filter.
pub(super) trait Subject: Copy {
    /// The byte that it is, if it is one.
    fn byte(self) -> Option<u8>;
    /// Whether it may have a `/` in it.
    fn may_have_slash(self) -> bool;
}

impl Subject for u8 {
    fn byte(self) -> Option<u8> {
        Some(self)
    }

    fn may_have_slash(self) -> bool {
        self == b'/'
    }
}

impl Subject for Piece {
    fn byte(self) -> Option<u8> {
        match self {
            Self::Byte(byte) => Some(byte),
            Self::Level | Self::Rest => None,
        }
    }

    fn may_have_slash(self) -> bool {
        matches!(self, Self::Byte(b'/') | Self::Rest)
    }
}

/// Whether `form` has whatever `subject` may be.
///
/// A gap of the subject is taken for a character that is in no form: only a gap of the form can have it,
/// and that gap then has everything else that could stand there.
pub(super) fn covers<S: Subject>(form: &[Token], subject: &[S]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where the form goes on after its last `Any`, and from where in the subject that was tried. What
    // stands between two of them ends the earlier the earlier it begins, so the last one is enough.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match form.get(at) {
            None if next == subject.len() => return true,
            Some(Token::Any) if at + 1 == form.len() => return true,
            Some(Token::Below) if is_below(&subject[next..]) => return true,
            Some(Token::Any) => {
                retry = Some((at + 1, next));
                Some(0)
            }
            Some(Token::Level) => level_len(&subject[next..]),
            Some(Token::Byte(byte)) => {
                subject.get(next).filter(|found| found.byte() == Some(*byte)).map(|_| 1)
            }
            Some(Token::Below | Token::ClientId | Token::Username) | None => None,
        };
        if let Some(length) = step {
            at += 1;
            next += length;
            continue;
        }
        let Some((after, from)) = retry.filter(|(_, from)| *from < subject.len()) else { return false };
        // On to the next place where it could go on.
        let skipped = match form.get(after) {
            Some(Token::Byte(byte)) => {
                subject[from + 1..].iter().position(|found| found.byte() == Some(*byte))
            }
            _ => Some(0),
        };
        let Some(skipped) = skipped else { return false };
        retry = Some((after, from + 1 + skipped));
        (at, next) = (after, from + 1 + skipped);
    }
}

fn is_below<S: Subject>(rest: &[S]) -> bool {
    rest.first().is_none_or(|first| first.byte() == Some(b'/'))
}

/// How long the rest of a level is; `None` if that cannot be told.
fn level_len<S: Subject>(subject: &[S]) -> Option<usize> {
    let end = subject.iter().position(|found| found.may_have_slash()).unwrap_or(subject.len());
    subject.get(end).is_none_or(|found| found.byte().is_some()).then_some(end)
}

/// Whether there may be a topic that both `form` and `filter` have.
pub(super) fn meets(form: &[Token], filter: &[Piece]) -> bool {
    let same = |(token, piece): &(&Token, &Piece)| match (token, piece) {
        (Token::Byte(a), Piece::Byte(b)) => a == b,
        _ => false,
    };
    let both = form.iter().zip(filter).take_while(same).count();
    let (form, filter) = (&form[both..], &filter[both..]);
    let width = filter.len() + 1;
    let mut seen = vec![false; (form.len() + 1) * width];
    let mut ways = vec![(0, 0)];
    while let Some((at, next)) = ways.pop() {
        if std::mem::replace(&mut seen[at * width + next], true) {
            continue;
        }
        let (token, piece) = (form.get(at), filter.get(next));
        match (token, piece) {
            (None, None) | (Some(Token::Below), None | Some(Piece::Byte(b'/') | Piece::Rest)) => return true,
            _ => {}
        }
        let (gap, open) = (gap_of_token(token), gap_of_piece(piece));
        // A gap may be over at any point; what two gaps could share need not be there at all.
        ways.extend(gap.map(|_| (at + 1, next)));
        ways.extend(open.map(|_| (at, next + 1)));
        match (token, piece) {
            (Some(Token::Byte(a)), Some(Piece::Byte(b))) if a == b => ways.push((at + 1, next + 1)),
            (_, Some(Piece::Byte(b))) if gap.is_some_and(|gap| gap.has(*b)) => ways.push((at, next + 1)),
            (Some(Token::Byte(a)), _) if open.is_some_and(|gap| gap.has(*a)) => ways.push((at + 1, next)),
            _ => {}
        }
    }
    false
}

/// A place where a topic may have any bytes.
#[derive(Clone, Copy)]
enum Gap {
    WithinLevel,
    AcrossLevels,
}

impl Gap {
    fn has(self, byte: u8) -> bool {
        matches!(self, Self::AcrossLevels) || byte != b'/'
    }
}

fn gap_of_token(token: Option<&Token>) -> Option<Gap> {
    match token? {
        Token::Level => Some(Gap::WithinLevel),
        Token::Any => Some(Gap::AcrossLevels),
        Token::Byte(_) | Token::Below | Token::ClientId | Token::Username => None,
    }
}

fn gap_of_piece(piece: Option<&Piece>) -> Option<Gap> {
    match piece? {
        Piece::Level => Some(Gap::WithinLevel),
        Piece::Rest => Some(Gap::AcrossLevels),
        Piece::Byte(_) => None,
    }
}

//! The arguments that an event or an ack carries, kept as the text and bytes they travel as.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use super::packet::Body;
use super::{ProtocolError, Raw, json};

/// A JSON array of arguments, and the binary attachments that its placeholders
/// (`{"_placeholder":true,"num":N}`) stand for (Socket.IO v5, "Packet encoding").
///
/// The text is kept as it came, so that data which is only passed on travels unchanged and is
/// neither parsed nor allocated again. Whoever holds a payload holds valid JSON: an array, nested
/// no deeper than the limit, whose placeholders match its attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The complete array, brackets included: `["msg",{"a":1}]`.
    pub json: ByteString,
    /// The attachments, in the order of their placeholders' numbers.
    pub attachments: Vec<Bytes>,
}

impl Payload {
    /// Checks text that comes from outside: an array, and each placeholder in it (if there are
    /// attachments) names one of them. As with the official parser, two may name the same one,
    /// and an attachment may go unnamed.
    pub fn parse(json: ByteString, attachments: Vec<Bytes>) -> Result<Self, ProtocolError> {
        Ok(Body::parse(ByteString::new(), None, json, attachments.len())?.into_payload(attachments))
    }

    /// An event with arguments that are encoded already: JSON values with commas between them, as
    /// [`Elements::text`] gives them, and the attachments that their placeholders number.
    pub fn event(name: &str, arguments: &str, attachments: Vec<Bytes>) -> Self {
        let mut text = Vec::with_capacity(name.len() + arguments.len() + 5);
        text.push(b'[');
        serde_json::to_writer(&mut text, name).expect("a string becomes JSON in memory");
        if !arguments.is_empty() {
            text.push(b',');
            text.extend_from_slice(arguments.as_bytes());
        }
        text.push(b']');
        let json = ByteString::try_from(text).expect("pieces of text are joined at commas");
        Self { json, attachments }
    }

    /// An ack with arguments that are encoded already.
    pub fn ack(arguments: &str, attachments: Vec<Bytes>) -> Self {
        Self { json: format!("[{arguments}]").into(), attachments }
    }

    /// An event's name: the first element, if it is a string. A number counts as its text, for
    /// the official server takes numbers as names.
    pub fn event_name(&self) -> Option<Cow<'_, str>> {
        event_name(&self.json)
    }

    /// An event's arguments: what follows its name.
    pub fn args(&self) -> Elements<'_> {
        let mut elements = self.elements();
        elements.next();
        elements
    }

    /// All elements: an ack's arguments.
    pub fn elements(&self) -> Elements<'_> {
        Elements::of(&self.json)
    }

    /// One element of this payload, to be passed on, with those attachments that it refers to.
    pub fn raw(&self, element: &str) -> Raw {
        Raw::extract(self.slice(element), &self.attachments)
    }

    /// Shares the payload's text if `part` lies in it, and copies `part` otherwise.
    pub(super) fn slice(&self, part: &str) -> ByteString {
        let text = self.json.as_bytes().as_ptr_range();
        let part_range = part.as_bytes().as_ptr_range();
        if text.start <= part_range.start && part_range.end <= text.end {
            self.json.slice_ref(part)
        } else {
            part.into()
        }
    }
}

/// The name in a checked array, whose whitespace is JSON's.
pub(super) fn event_name(array: &str) -> Option<Cow<'_, str>> {
    // As nearly all clients write it: what ends the name is a quote.
    if let Some(inner) = array.strip_prefix("[\"")
        && let Some(end) = inner.bytes().position(|byte| matches!(byte, b'"' | b'\\'))
        && inner.as_bytes()[end] == b'"'
    {
        return Some(Cow::Borrowed(&inner[..end]));
    }
    let first = Elements::of(array).next()?;
    match first.as_bytes()[0] {
        b'"' if first.contains('\\') => Some(Cow::Owned(json::unquote(first))),
        b'"' => Some(Cow::Borrowed(first.trim_matches('"'))),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(first)),
        _ => None,
    }
}

/// The elements of a payload's array, each as its text; nothing is parsed or allocated.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    /// From the next element (or the comma before it) to the closing bracket, without it.
    rest: &'a str,
}

impl<'a> Elements<'a> {
    fn of(array: &'a str) -> Self {
        let array = array.trim_ascii();
        let inner = array.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Self { rest: inner.unwrap_or_default() }
    }

    /// The text of those that have not been taken, commas between them.
    pub fn text(&self) -> &'a str {
        let rest = self.rest.trim_ascii_start();
        rest.strip_prefix(',').unwrap_or(rest).trim_ascii()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.text();
        let (element, rest) = text.split_at(json::end_of_value(text, 0));
        self.rest = rest;
        (!element.is_empty()).then_some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &str) -> Payload {
        Payload::parse(json.into(), Vec::new()).unwrap()
    }

    fn with_attachments(json: &str, count: usize) -> Result<Payload, ProtocolError> {
        Payload::parse(json.into(), vec![Bytes::from_static(b"x"); count])
    }

    #[test]
    fn only_arrays_are_payloads() {
        for text in ["{}", "\"a\"", "1", "", "[1", "[1]]"] {
            let parsed = Payload::parse(text.into(), Vec::new());
            assert_eq!(parsed, Err(ProtocolError::InvalidPayload), "{text}");
        }
    }

    #[test]
    fn elements_are_slices_of_the_text() {
        let payload = payload(r#" [ "a,]\"" , {"b":[1,"]"]} ,[ ], -1.5e3 ,null ] "#);
        let elements: Vec<_> = payload.elements().collect();
        assert_eq!(elements, [r#""a,]\"""#, r#"{"b":[1,"]"]}"#, "[ ]", "-1.5e3", "null"]);
        assert_eq!(payload.args().count(), 4);
        assert_eq!(payload.args().text(), r#"{"b":[1,"]"]} ,[ ], -1.5e3 ,null"#);
    }

    #[test]
    fn event_without_arguments_has_none() {
        assert_eq!(payload(r#"["a"]"#).args().text(), "");
        assert_eq!(payload(r#"["a"]"#).args().next(), None);
        assert_eq!(payload("[]").args().next(), None);
    }

    #[test]
    fn event_name_is_the_first_string_or_number() {
        assert_eq!(payload(r#"["msg",1]"#).event_name().as_deref(), Some("msg"));
        assert_eq!(payload(r#"["\u00e9\n\ud83d\ude00"]"#).event_name().as_deref(), Some("é\n😀"));
        assert_eq!(payload(r#"["\ud83d"]"#).event_name().as_deref(), Some("\u{fffd}"));
        assert_eq!(payload(r#"[12]"#).event_name().as_deref(), Some("12"));
        assert_eq!(payload(r#"[""]"#).event_name().as_deref(), Some(""));
        assert_eq!(payload(r#"[null]"#).event_name(), None);
        assert_eq!(payload(r#"[]"#).event_name(), None);
    }

    #[test]
    fn arguments_pass_from_one_packet_to_another_unchanged() {
        let echo = payload(r#"["echo",1.50, {"a" : "\u00e9"}]"#);
        assert_eq!(
            Payload::ack(echo.args().text(), Vec::new()).json,
            r#"[1.50, {"a" : "\u00e9"}]"#
        );
        let event = Payload::event("m\"sg", echo.args().text(), Vec::new());
        assert_eq!(event.json, r#"["m\"sg",1.50, {"a" : "\u00e9"}]"#);
        assert_eq!(Payload::event("msg", "", Vec::new()).json, r#"["msg"]"#);
    }

    #[test]
    fn placeholders_must_name_an_attachment() {
        assert!(with_attachments(r#"["a",{"_placeholder":true,"num":0}]"#, 1).is_ok());
        assert!(with_attachments(r#"["a",[{"b":{"num":1,"_placeholder":true}}]]"#, 2).is_ok());
        for number in ["1", "-1", "0.5", "\"0\"", "null", "1e99"] {
            let text = format!(r#"["a",{{"_placeholder":true,"num":{number}}}]"#);
            assert_eq!(
                with_attachments(&text, 1),
                Err(ProtocolError::IllegalPlaceholder),
                "{text}"
            );
        }
        let unnumbered = with_attachments(r#"["a",{"_placeholder":true}]"#, 1);
        assert_eq!(unnumbered, Err(ProtocolError::IllegalPlaceholder));
    }

    #[test]
    fn without_attachments_a_placeholder_is_an_object() {
        assert!(with_attachments(r#"["a",{"_placeholder":true,"num":7}]"#, 0).is_ok());
    }

    #[test]
    fn attachments_may_be_named_twice_or_not_at_all() {
        let twice = r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#;
        assert!(with_attachments(twice, 1).is_ok());
        assert!(with_attachments("[1]", 1).is_ok());
    }

    #[test]
    fn unchecked_text_is_walked_without_panic() {
        for text in ["[", "[}", "[,]", "[\"\\é", "é[\"a", "[\"a]", "[]]", "[a é b]", "[[[,"] {
            let payload = Payload { json: text.into(), attachments: Vec::new() };
            assert!(payload.elements().count() <= text.len());
            let _ = payload.event_name();
        }
    }
}

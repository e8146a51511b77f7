//! What `#[controller(…)]` and `#[subscribe(…)]` say: names and regular expressions.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitStr, Result, Token};

/// One name, or one regular expression.
pub(crate) enum Matcher {
    Name(LitStr),
    Pattern(LitStr),
}

impl Matcher {
    /// A pattern that is none is an error where it stands.
    fn pattern(literal: LitStr) -> Result<Self> {
        match regex::Regex::new(&literal.value()) {
            Ok(_) => Ok(Self::Pattern(literal)),
            Err(error) => Err(Error::new(literal.span(), error)),
        }
    }
}

impl ToTokens for Matcher {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Self::Name(name) => quote! {
                ::flotilla::apps::controllers::Matcher::Name(::std::borrow::Cow::Borrowed(#name))
            },
            Self::Pattern(pattern) => quote! {
                ::flotilla::apps::controllers::Matcher::Pattern(::std::borrow::Cow::Borrowed(#pattern))
            },
        });
    }
}

/// `"text"`, or `key = "text"`.
struct Entry {
    key: Option<Ident>,
    text: LitStr,
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(LitStr) {
            return Ok(Self { key: None, text: input.parse()? });
        }
        let key: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(Self { key: Some(key), text: input.parse()? })
    }
}

fn entries(input: ParseStream<'_>) -> Result<Punctuated<Entry, Token![,]>> {
    Punctuated::parse_terminated(input)
}

/// Where a controller is bound, and under which name.
pub(crate) struct Place {
    namespace: Option<Matcher>,
    name: Option<LitStr>,
}

impl Parse for Place {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut place = Self { namespace: None, name: None };
        for Entry { key, text } in entries(input)? {
            let span = text.span();
            let matcher = match key.as_ref().map(Ident::to_string).as_deref() {
                None | Some("namespace") => Matcher::Name(text),
                Some("regex") => Matcher::pattern(text)?,
                Some("name") => {
                    place.name = Some(text);
                    continue;
                }
                Some(_) => {
                    return Err(Error::new_spanned(key, "expected `namespace`, `regex` or `name`"));
                }
            };
            if place.namespace.replace(matcher).is_some() {
                return Err(Error::new(span, "a controller has one namespace, or one pattern"));
            }
        }
        if let (Some(Matcher::Pattern(_)), Some(name)) = (&place.namespace, &place.name) {
            return Err(Error::new(name.span(), "namespaces of a pattern have no one name"));
        }
        Ok(place)
    }
}

impl Place {
    pub(crate) fn namespace(&self) -> Option<TokenStream> {
        let namespace = self.namespace.as_ref()?;
        Some(quote! {
            fn namespace() -> ::flotilla::apps::controllers::Matcher {
                #namespace
            }
        })
    }

    pub(crate) fn name(&self) -> Option<TokenStream> {
        let name = self.name.as_ref()?;
        Some(quote! {
            fn namespace_name() -> ::core::option::Option<&'static ::core::primitive::str> {
                ::core::option::Option::Some(#name)
            }
        })
    }
}

/// The events that a handler is for.
pub(crate) struct Events(pub(crate) Vec<Matcher>);

/// What no client can send as an event (Socket.IO v5), and what to say in its stead.
const RESERVED: [(&str, &str); 6] = [
    ("connect", "a client sends no such event: use `#[connect]`"),
    ("connection", "a client sends no such event: use `#[connect]`"),
    ("disconnect", "a client sends no such event: use `#[disconnect]`"),
    ("disconnecting", "a client sends no such event: use `#[disconnect]`"),
    ("connect_error", "a client sends no such event"),
    ("newListener", "a client sends no such event"),
];

impl Parse for Events {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut events = Vec::new();
        for Entry { key, text } in entries(input)? {
            events.push(match key.as_ref().map(Ident::to_string).as_deref() {
                None => named(text)?,
                Some("regex") => Matcher::pattern(text)?,
                Some(_) => return Err(Error::new_spanned(key, "expected a name, or `regex`")),
            });
        }
        if events.is_empty() {
            return Err(input.error("which events? Give names, or `regex = \"…\"`"));
        }
        Ok(Self(events))
    }
}

fn named(text: LitStr) -> Result<Matcher> {
    let reserved = RESERVED.iter().find(|(name, _)| *name == text.value());
    match reserved {
        Some((_, advice)) => Err(Error::new(text.span(), advice)),
        None => Ok(Matcher::Name(text)),
    }
}

//! One function or constant that is exported, and how it is added to the exports.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Ident, ImplItemConst, ImplItemFn, LitStr, Meta, Pat, Result, Type};

use crate::signature;

pub(crate) struct Export {
    /// As clients know it.
    name: LitStr,
    of: Ident,
    kind: Kind,
}

enum Kind {
    Constant,
    Function { parameters: Vec<Parameter>, has_self: bool, is_async: bool, returns_result: bool },
}

struct Parameter {
    /// As it travels.
    name: String,
    of: Type,
}

impl Export {
    pub(crate) fn constant(constant: &mut ImplItemConst) -> Result<Option<Self>> {
        let name = take_name(&mut constant.attrs, &constant.ident)?;
        Ok(name.map(|name| Self { name, of: constant.ident.clone(), kind: Kind::Constant }))
    }

    pub(crate) fn function(function: &mut ImplItemFn) -> Result<Option<Self>> {
        let Some(name) = take_name(&mut function.attrs, &function.sig.ident)? else {
            return Ok(None);
        };
        let signature = &function.sig;
        if let Some(receiver) = signature.receiver() {
            signature::check_shared(receiver, "calls")?;
        }
        signature::check_generics(signature)?;
        let parameters = signature::parameters(signature).map(|parameter| {
            let name = parameter_name(&parameter.pat)?;
            Ok(Parameter { name, of: signature::fillable(parameter)? })
        });
        let kind = Kind::Function {
            parameters: parameters.collect::<Result<_>>()?,
            has_self: signature.receiver().is_some(),
            is_async: signature.asyncness.is_some(),
            returns_result: signature::returns_result(signature),
        };
        Ok(Some(Self { name, of: signature.ident.clone(), kind }))
    }

    pub(crate) fn name(&self) -> String {
        self.name.value()
    }

    pub(crate) fn span(&self) -> Span {
        self.name.span()
    }

    /// A statement that adds it to `exports`; `exported` is the instance, whose type is `of`.
    pub(crate) fn add(&self, of: &Type) -> TokenStream {
        let (name, item) = (&self.name, &self.of);
        let Kind::Function { parameters, has_self, is_async, returns_result } = &self.kind else {
            return quote_spanned! { item.span() =>
                let exports = exports.constant(#name, <#of>::#item);
            };
        };
        let arguments: Vec<_> =
            (0..parameters.len()).map(|place| format_ident!("argument_{place}")).collect();
        let names = parameters.iter().map(Parameter::told);
        let taken = parameters.iter().map(Parameter::take);
        let keep = has_self.then(|| quote! { let exported = ::std::sync::Arc::clone(&exported); });
        let receiver = has_self.then(|| quote! { &exported, });
        let wait = is_async.then(|| quote! { .await });
        let returned = quote! { <#of>::#item(#receiver #(#arguments),*)#wait };
        let answer = if *returns_result {
            quote! { ::flotilla::apps::api::glue::result(#returned) }
        } else {
            quote! { (&::flotilla::apps::api::glue::Returned(&#returned)).answer() }
        };
        quote_spanned! { item.span() =>
            let exports = {
                #[allow(
                    unused_imports,
                    reason = "which of them applies is told by the types of the function"
                )]
                use ::flotilla::apps::api::glue::{
                    AnswerResult as _, AnswerValue as _, TakeInjected as _, TakeSent as _,
                };
                #keep
                ::flotilla::apps::api::glue::function(
                    exports,
                    #name,
                    &[#(#names),*],
                    move |call: &::flotilla::apps::api::glue::Call<'_>| {
                        let _ = call;
                        #keep
                        #(let #arguments = #taken;)*
                        ::core::result::Result::Ok(::std::boxed::Box::pin(async move { #answer }))
                    },
                )
            };
        }
    }
}

impl Parameter {
    /// What clients are told of it: its name, or nothing if it is injected.
    fn told(&self) -> TokenStream {
        let (name, of) = (&self.name, &self.of);
        quote_spanned! { of.span() =>
            (&&::flotilla::apps::api::glue::Parameter::<#of>::new()).told(#name)
        }
    }

    fn take(&self) -> TokenStream {
        let (name, of) = (&self.name, &self.of);
        quote_spanned! { of.span() =>
            (&&::flotilla::apps::api::glue::Parameter::<#of>::new()).take(call, #name)?
        }
    }
}

/// The name of an item that has `#[export]`, which is taken away: its own, or the one that is given.
fn take_name(attributes: &mut Vec<Attribute>, item: &Ident) -> Result<Option<LitStr>> {
    let is_export = |attribute: &Attribute| attribute.path().is_ident("export");
    let mut exports = attributes.iter().filter(|attribute| is_export(attribute));
    let Some(export) = exports.next() else { return Ok(None) };
    let name = match &export.meta {
        Meta::Path(_) => LitStr::new(&item.unraw().to_string(), item.span()),
        _ => export.parse_args().map_err(|_| {
            Error::new(export.span(), "`#[export]`, or `#[export(\"nameForClients\")]`")
        })?,
    };
    if let Some(second) = exports.next() {
        return Err(Error::new(second.span(), "it is exported once"));
    }
    attributes.retain(|attribute| !is_export(attribute));
    check_name(&name)?;
    Ok(Some(name))
}

/// What registering would refuse, said as the program is compiled.
fn check_name(name: &LitStr) -> Result<()> {
    let refused = |why: &str| Err(Error::new(name.span(), why));
    match &*name.value() {
        "" => refused("clients cannot call what has no name"),
        "on" | "off" => refused("clients have an `on` and an `off` of their own there"),
        text if text.starts_with('_') => {
            refused("names that begin with `_` are not exported: give it another for clients")
        }
        text if text.contains(char::is_control) => refused("a control character in a name"),
        _ => Ok(()),
    }
}

fn parameter_name(pattern: &Pat) -> Result<String> {
    let refused = |why: &str| Err(Error::new(pattern.span(), why));
    match pattern {
        Pat::Ident(name) if name.subpat.is_none() => match name.ident.unraw().to_string() {
            name if name == "__stack" => refused("`__stack` is what api.io's client sends itself"),
            name => Ok(name),
        },
        _ => refused("an argument travels by its name: give it one, and take it apart inside"),
    }
}

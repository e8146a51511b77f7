//! One handler of a controller, and the function that calls it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Ident, ImplItemFn, Meta, Receiver, Result, Type};

use super::matchers::Events;
use crate::signature;

pub(crate) enum Kind {
    Connect,
    Subscribe(Events),
    Disconnect,
    Create,
}

impl Kind {
    fn of(attribute: &Attribute) -> Result<Option<Self>> {
        let Some(name) = attribute.path().get_ident() else { return Ok(None) };
        let kind = match &*name.to_string() {
            "connect" => Self::Connect,
            "disconnect" => Self::Disconnect,
            "create" => Self::Create,
            "subscribe" => {
                let Meta::List(list) = &attribute.meta else {
                    let missing = "which events? `#[subscribe(\"name\")]`";
                    return Err(Error::new(attribute.span(), missing));
                };
                return list.parse_args().map(|events| Some(Self::Subscribe(events)));
            }
            _ => return Ok(None),
        };
        attribute.meta.require_path_only()?;
        Ok(Some(kind))
    }
}

pub(crate) struct Method {
    pub(crate) kind: Kind,
    pub(crate) name: Ident,
    is_async: bool,
    parameters: Vec<Type>,
    /// It may fail, as far as its signature shows.
    returns_result: bool,
}

impl Method {
    /// What a function is, if it has an attribute that says so; the attribute is taken away.
    pub(crate) fn take(function: &mut ImplItemFn) -> Result<Option<Self>> {
        let mut kind = None;
        let mut kept = Vec::new();
        for attribute in std::mem::take(&mut function.attrs) {
            match Kind::of(&attribute)? {
                Some(_) if kind.is_some() => {
                    return Err(Error::new(attribute.span(), "a handler is for one thing"));
                }
                Some(found) => kind = Some(found),
                None => kept.push(attribute),
            }
        }
        function.attrs = kept;
        let Some(kind) = kind else { return Ok(None) };
        let signature = &function.sig;
        let may_have_self = !matches!(kind, Kind::Create);
        check_receiver(signature.receiver(), may_have_self, &signature.ident)?;
        signature::check_generics(signature)?;
        let parameters = signature::parameters(signature).map(signature::fillable);
        Ok(Some(Self {
            kind,
            name: signature.ident.clone(),
            is_async: signature.asyncness.is_some(),
            parameters: parameters.collect::<Result<_>>()?,
            returns_result: signature::returns_result(signature),
        }))
    }

    /// An expression: the method, or the subscription, of a description.
    pub(crate) fn describe(&self) -> TokenStream {
        let name = self.name.to_string();
        let invoke = self.invoke();
        let method = quote! {
            ::flotilla::apps::controllers::Method { name: #name, invoke: #invoke }
        };
        match &self.kind {
            Kind::Subscribe(Events(events)) => quote! {
                ::flotilla::apps::controllers::Subscription {
                    events: ::std::vec![#(#events),*],
                    method: #method,
                }
            },
            Kind::Connect | Kind::Disconnect | Kind::Create => method,
        }
    }

    fn invoke(&self) -> TokenStream {
        let (name, taken, arguments) = (&self.name, self.take_parameters(), self.arguments());
        let wait = self.wait();
        quote_spanned! { name.span() =>
            |controller: ::std::sync::Arc<Self>,
             call: &::flotilla::apps::controllers::Call<'_>| {
                #taken
                ::core::result::Result::Ok(::std::boxed::Box::pin(async move {
                    #[allow(
                        unused_imports,
                        reason = "which of them applies is told by what the handler returns"
                    )]
                    use ::flotilla::apps::controllers::glue::{
                        FromDisplayedError as _, FromErrorObject as _, FromSerializedError as _,
                        FromValue as _,
                    };
                    (&&&&::flotilla::apps::controllers::glue::Returned(
                        &controller.#name(#(#arguments),*)#wait,
                    ))
                        .output()
                }))
            }
        }
    }

    /// The body of `Controller::create`.
    pub(crate) fn create(&self) -> TokenStream {
        let (name, taken, arguments) = (&self.name, self.take_parameters(), self.arguments());
        let wait = self.wait();
        let made = if self.returns_result {
            quote! {
                match made {
                    ::core::result::Result::Ok(made) => ::core::result::Result::Ok(made),
                    ::core::result::Result::Err(error) => {
                        let failed = ::core::result::Result::Err::<(), _>(error);
                        ::flotilla::apps::controllers::glue::failed(
                            (&&&&::flotilla::apps::controllers::glue::Returned(&failed)).output(),
                        )
                    }
                }
            }
        } else {
            quote! { ::core::result::Result::Ok(made) }
        };
        quote_spanned! { name.span() =>
            #taken
            ::core::result::Result::Ok(::std::boxed::Box::pin(async move {
                #[allow(
                    unused_imports,
                    reason = "which of them applies is told by what the function returns"
                )]
                use ::flotilla::apps::controllers::glue::{
                    FromDisplayedError as _, FromErrorObject as _, FromSerializedError as _,
                };
                let made = Self::#name(#(#arguments),*)#wait;
                #made
            }))
        }
    }

    /// Statements that fill the arguments, each reported where its parameter stands.
    fn take_parameters(&self) -> TokenStream {
        let arguments = self.arguments();
        if !matches!(self.kind, Kind::Subscribe(_)) {
            // No client sends anything here.
            let injected = self.parameters.iter().map(|of| {
                quote_spanned! { of.span() =>
                    ::flotilla::apps::controllers::glue::inject::<#of>(call)?
                }
            });
            return quote! {
                let _ = call;
                #(let #arguments = #injected;)*
            };
        }
        let taken = self.parameters.iter().map(|of| {
            quote_spanned! { of.span() =>
                (&&::flotilla::apps::controllers::glue::Parameter::<#of>::new())
                    .take(call, &mut arguments)?
            }
        });
        quote! {
            #[allow(
                unused_imports,
                reason = "which of them applies is told by the types of the parameters"
            )]
            use ::flotilla::apps::controllers::glue::{TakeInjected as _, TakeSent as _};
            #[allow(unused_mut, unused_variables, reason = "there may be no parameters")]
            let mut arguments = call.arguments();
            #(let #arguments = #taken;)*
        }
    }

    fn arguments(&self) -> Vec<Ident> {
        (0..self.parameters.len()).map(|place| format_ident!("argument_{place}")).collect()
    }

    fn wait(&self) -> Option<TokenStream> {
        self.is_async.then(|| quote! { .await })
    }
}

fn check_receiver(receiver: Option<&Receiver>, wanted: bool, name: &Ident) -> Result<()> {
    match receiver {
        None if wanted => Err(Error::new(name.span(), "a handler takes `&self`")),
        Some(receiver) if !wanted => {
            Err(Error::new(receiver.span(), "there is no `self` before it is created"))
        }
        Some(receiver) => signature::check_shared(receiver, "the handlers of one socket"),
        None => Ok(()),
    }
}

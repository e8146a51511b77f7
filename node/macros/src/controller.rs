//! `#[controller]`: reads an `impl` block, and writes the `Controller` beside it.

mod matchers;
mod method;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, ImplItem, ItemImpl, Result, Type, parse2};

use matchers::Place;
use method::{Kind, Method};

pub(crate) fn expand(arguments: TokenStream, block: TokenStream) -> Result<TokenStream> {
    let place: Place = parse2(arguments)?;
    let mut block: ItemImpl = parse2(block)?;
    if let Some((_, of, _)) = &block.trait_ {
        return Err(Error::new(of.span(), "a controller is an `impl` block of its own type"));
    }
    let methods = take_methods(&mut block)?;
    let controller = implementation(&block, &place, &methods)?;
    let discovered = discovered(&block);
    Ok(quote! { #block #controller #discovered })
}

/// The handlers, without the attributes that made them such, and all errors at once.
fn take_methods(block: &mut ItemImpl) -> Result<Vec<Method>> {
    let mut methods = Vec::new();
    let mut errors: Option<Error> = None;
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        match Method::take(function) {
            Ok(method) => methods.extend(method),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    errors.map_or(Ok(methods), Err)
}

fn implementation(block: &ItemImpl, place: &Place, methods: &[Method]) -> Result<TokenStream> {
    let of = &block.self_ty;
    let (generics, _, bounds) = block.generics.split_for_impl();
    let name = type_name(of)?;
    let namespace = place.namespace();
    let namespace_name = place.name();
    let described = |wanted: fn(&Kind) -> bool| {
        methods.iter().filter(move |method| wanted(&method.kind)).map(Method::describe)
    };
    let connect = described(|kind| matches!(kind, Kind::Connect));
    let subscriptions = described(|kind| matches!(kind, Kind::Subscribe(_)));
    let disconnect = described(|kind| matches!(kind, Kind::Disconnect));
    let create = create(of, methods)?;
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::flotilla::apps::controllers::Controller for #of #bounds {
            const NAME: &'static ::core::primitive::str = #name;
            #namespace
            #namespace_name

            fn description() -> ::flotilla::apps::controllers::Description<Self> {
                ::flotilla::apps::controllers::Description {
                    connect: ::std::vec![#(#connect),*],
                    subscriptions: ::std::vec![#(#subscriptions),*],
                    disconnect: ::std::vec![#(#disconnect),*],
                }
            }

            fn create(
                call: &::flotilla::apps::controllers::Call<'_>,
            ) -> ::core::result::Result<
                ::flotilla::apps::controllers::glue::Created<Self>,
                ::flotilla::apps::controllers::Error,
            > {
                #create
            }
        }
    })
}

/// How an instance is made: by the function that says so, else by default.
fn create(of: &Type, methods: &[Method]) -> Result<TokenStream> {
    let mut creators = methods.iter().filter(|method| matches!(method.kind, Kind::Create));
    let Some(creator) = creators.next() else {
        return Ok(quote_spanned! { of.span() =>
            let _ = call;
            ::core::result::Result::Ok(::std::boxed::Box::pin(::core::future::ready(
                ::core::result::Result::Ok(
                    ::flotilla::apps::controllers::glue::make::<#of>(),
                ),
            )))
        });
    };
    match creators.next() {
        Some(second) => Err(Error::new(second.name.span(), "a controller has one `#[create]`")),
        None => Ok(creator.create()),
    }
}

/// The name of the type, without its path and its parameters.
fn type_name(of: &Type) -> Result<String> {
    match of {
        Type::Path(path) => match path.path.segments.last() {
            Some(last) => Ok(last.ident.to_string()),
            None => Err(Error::new(of.span(), "a controller is a type with a name")),
        },
        other => Err(Error::new(other.span(), "a controller is a type with a name")),
    }
}

/// Has the program find it. A generic type is none yet, so it can only be registered by hand.
fn discovered(block: &ItemImpl) -> TokenStream {
    if !block.generics.params.is_empty() {
        return TokenStream::new();
    }
    let of = &block.self_ty;
    quote! {
        ::flotilla::apps::controllers::glue::inventory::submit! {
            ::flotilla::apps::controllers::Discovered::of::<#of>()
        }
    }
}

#[cfg(test)]
mod tests;

//! `#[api]`: reads an `impl` block, and writes beside it how its type becomes `Exports`.

mod export;

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned as _;
use syn::{Error, ImplItem, ItemImpl, Result, parse2};

use export::Export;

pub(crate) fn expand(arguments: TokenStream, block: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        let why = "the name is given where it is registered: `api.register(\"name\", …)`";
        return Err(Error::new(arguments.span(), why));
    }
    let mut block: ItemImpl = parse2(block)?;
    if let Some((_, of, _)) = &block.trait_ {
        return Err(Error::new(of.span(), "an API is an `impl` block of its own type"));
    }
    let exports = take_exports(&mut block)?;
    if exports.is_empty() {
        let why = "nothing is exported: mark functions and constants with `#[export]`";
        return Err(Error::new(block.self_ty.span(), why));
    }
    let conversion = conversion(&block, &exports);
    Ok(quote! { #block #conversion })
}

/// What is exported, without the attributes that made it such, and all errors at once.
fn take_exports(block: &mut ItemImpl) -> Result<Vec<Export>> {
    let mut exports: Vec<Export> = Vec::new();
    let mut errors: Option<Error> = None;
    for item in &mut block.items {
        let taken = match item {
            ImplItem::Fn(function) => Export::function(function),
            ImplItem::Const(constant) => Export::constant(constant),
            _ => continue,
        };
        let taken = taken.and_then(|export| match export {
            Some(export) if exports.iter().any(|other| other.name() == export.name()) => {
                let why = format!("`{}` is exported twice", export.name());
                Err(Error::new(export.span(), why))
            }
            export => Ok(export),
        });
        match (taken, &mut errors) {
            (Ok(export), _) => exports.extend(export),
            (Err(error), Some(errors)) => errors.combine(error),
            (Err(error), None) => errors = Some(error),
        }
    }
    errors.map_or(Ok(exports), Err)
}

fn conversion(block: &ItemImpl, exports: &[Export]) -> TokenStream {
    let of = &block.self_ty;
    let (generics, _, bounds) = block.generics.split_for_impl();
    let steps = exports.iter().map(|export| export.add(of));
    quote! {
        #[automatically_derived]
        impl #generics ::core::convert::From<#of> for ::flotilla::apps::api::Exports #bounds {
            fn from(exported: #of) -> Self {
                #[allow(unused_variables, reason = "there may be no function of `&self`")]
                let exported = ::std::sync::Arc::new(exported);
                let exports = Self::new();
                #(#steps)*
                exports
            }
        }
    }
}

#[cfg(test)]
mod tests;

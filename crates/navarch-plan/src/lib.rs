//! Which resources each class of proxies gets

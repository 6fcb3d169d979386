//! Objects of the Gateway API and Ingresses that come and go.

macro_rules! object {
    ($kind:literal, $namespace:literal, $name:literal, $spec:literal) => {
        concat!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ",
            $kind,
            "\nmetadata: {name: ",
            $name,
            ", namespace: ",
            $namespace,
            "}\nspec: ",
            $spec,
            "\n"
        )
    };
}

/// Each has a few versions.
pub const DOCUMENTS: &[&[&str]] = &[
    &[
        "apiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: default}\nspec: {clusterIP: 10.0.0.20, selector: {istio: gateway}, ports: [{name: http, port: 80}, {name: tcp, port: 9000}, {name: dns, port: 53, protocol: UDP}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: gw-1, namespace: default, labels: {istio: gateway}}\nstatus: {podIP: 10.1.0.8, podIPs: [{ip: 10.1.0.8}], phase: Running}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: default}\nspec: {clusterIP: 10.0.0.20, selector: {istio: gateway}, ports: [{name: http, port: 80, targetPort: 8080}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: gw-1, namespace: default, labels: {istio: gateway}}\nstatus: {podIP: 10.1.0.8, podIPs: [{ip: 10.1.0.8}], phase: Running}\n",
    ],
    &[
        object!(
            "Gateway",
            "default",
            "edge",
            "{gatewayClassName: istio, addresses: [{type: Hostname, value: edge.default.svc.cluster.local}], allowedListeners: {namespaces: {from: All}}, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, {name: tcp, port: 9000, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]}"
        ),
        object!(
            "Gateway",
            "default",
            "edge",
            "{gatewayClassName: navarch, addresses: [{type: Hostname, value: edge.default.svc.cluster.local}], listeners: [{name: http, port: 80, protocol: HTTP, hostname: '*.test'}, {name: one, port: 80, protocol: HTTP, hostname: one.test}, {name: tls, port: 9000, protocol: TLS, tls: {mode: Passthrough}}]}"
        ),
        object!(
            "Gateway",
            "default",
            "edge",
            "{gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}"
        ),
    ],
    &[object!(
        "ListenerSet",
        "other",
        "more",
        "{parentRef: {name: edge, namespace: default}, listeners: [{name: more, port: 80, protocol: HTTP, hostname: more.test}]}"
    )],
    &[
        object!(
            "HTTPRoute",
            "default",
            "r",
            "{parentRefs: [{name: edge}], hostnames: [one.test, '*.test'], rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: a, port: 80, weight: 3}, {name: b, namespace: other, port: 80}]}, {backendRefs: [{name: nowhere, port: 80}]}]}"
        ),
        object!(
            "HTTPRoute",
            "default",
            "r",
            "{parentRefs: [{name: edge, sectionName: http}], rules: [{sessionPersistence: {sessionName: s}, backendRefs: [{name: a, port: 80}]}]}"
        ),
        object!(
            "HTTPRoute",
            "default",
            "r",
            "{parentRefs: [{group: '', kind: Service, name: a}], rules: [{matches: [{path: {value: /x}, method: GET}], backendRefs: [{name: b, port: 80, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}, {name: a, port: 80}]}]}"
        ),
        object!(
            "HTTPRoute",
            "default",
            "r",
            "{parentRefs: [{name: edge}, {name: absent}], rules: [{filters: [{type: ExtensionRef, extensionRef: {group: x.example, kind: X, name: x}}]}]}"
        ),
    ],
    &[
        object!(
            "HTTPRoute",
            "other",
            "r",
            "{parentRefs: [{name: edge, namespace: default}, {kind: ListenerSet, name: more}], hostnames: [one.test], rules: [{matches: [{path: {value: /a/b}}], timeouts: {request: 1s}, backendRefs: [{name: b, port: 80}]}]}"
        ),
        object!(
            "HTTPRoute",
            "other",
            "r",
            "{parentRefs: [{group: '', kind: Service, name: a, namespace: default, port: 80}], rules: [{sessionPersistence: {type: Header}, backendRefs: [{name: b, port: 80}]}]}"
        ),
    ],
    &[object!(
        "GRPCRoute",
        "default",
        "g",
        "{parentRefs: [{name: edge}, {group: '', kind: Service, name: b}], hostnames: [one.test], rules: [{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: b, port: 80}]}]}"
    )],
    &[
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: t, namespace: default}\nspec: {parentRefs: [{name: edge, sectionName: tcp}, {group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 80}, {name: b, port: 80, weight: 2}]}]}\n",
    ],
    &[object!(
        "TLSRoute",
        "default",
        "t",
        "{parentRefs: [{name: edge}], hostnames: [tls.test], rules: [{backendRefs: [{name: c, namespace: other, port: 80}]}]}"
    )],
    &[
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: UDPRoute\nmetadata: {name: u, namespace: default}\nspec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: edge, port: 53}]}]}\n",
    ],
    &[
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}, {group: gateway.networking.k8s.io, kind: TLSRoute, namespace: default}], to: [{group: '', kind: Service}]}\n",
    ],
    &[
        object!(
            "BackendTLSPolicy",
            "default",
            "p",
            "{targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.test, wellKnownCACertificates: System}}"
        ),
        object!(
            "BackendTLSPolicy",
            "default",
            "p",
            "{targetRefs: [{group: '', kind: Service, name: b, sectionName: http}], validation: {hostname: b.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: absent}]}}"
        ),
    ],
    &[
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: default, annotations: {kubernetes.io/ingress.class: istio}}\nspec: {tls: [{hosts: [one.test], secretName: c}], rules: [{host: one.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}\n",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: default, annotations: {kubernetes.io/ingress.class: istio}}\nspec: {defaultBackend: {service: {name: b, port: {name: http}}}}\n",
    ],
    &[
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: other, annotations: {kubernetes.io/ingress.class: istio}}\nspec: {rules: [{host: one.test, http: {paths: [{path: /b, pathType: Exact, backend: {service: {name: b, port: {number: 80}}}}]}}]}\n",
    ],
];

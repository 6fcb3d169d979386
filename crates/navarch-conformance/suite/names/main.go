// Command names stands for the name server that the suite has as a backend for UDP: like CoreDNS with its plugin
// `whoami`, it answers every question with the address of whoever asks.
package main

import (
	"log"
	"net"

	"github.com/miekg/dns"
)

func main() {
	dns.HandleFunc(".", func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		answer.Authoritative = true
		if host, _, err := net.SplitHostPort(w.RemoteAddr().String()); err == nil && len(question.Question) == 1 {
			header := dns.RR_Header{Name: question.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
			answer.Extra = append(answer.Extra, &dns.A{Hdr: header, A: net.ParseIP(host)})
		}
		_ = w.WriteMsg(answer)
	})
	log.Fatal((&dns.Server{Addr: ":53", Net: "udp"}).ListenAndServe())
}

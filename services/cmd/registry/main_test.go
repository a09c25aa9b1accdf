package main

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/scripttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"registry": main})
}

func TestCommand(t *testing.T) {
	testscript.Run(t, scripttest.Params(map[string]scripttest.Word{
		"certify": certify,
		"nobody":  nobody,
	}))
}

// certify DIR NAME...: write a certificate for these names, its key and its
// authority, and an operator's into DIR/operator. $CLIENT is who asks from then on.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	client := filepath.Join(dir, "operator")
	ts.Setenv("CLIENT", client)
	scripttest.Certify(ts, map[string]authority.Request{
		dir:    {Role: "registry", ID: "registry-1", DNS: args[1:]},
		client: {Role: "operator", ID: "somebody"},
	})
}

// nobody URL CODE: what the URL answers to one without a certificate.
func nobody(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	if strconv.Itoa(resp.StatusCode) != args[1] {
		ts.Fatalf("%s answers %s", args[0], resp.Status)
	}
}

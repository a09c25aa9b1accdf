package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

type healthCommand struct {
	HTTPListen string        `name:"http-listen" default:"127.0.0.1:7491" help:"The address that the process listens on."`
	Timeout    time.Duration `default:"3s" help:"Wait this long for an answer."`
}

// Run asks once.
func (c *healthCommand) Run(ctx context.Context) error {
	host, port, err := net.SplitHostPort(c.HTTPListen)
	if err != nil {
		return fmt.Errorf("--http-listen %q: want host:port", c.HTTPListen)
	}
	if unspecified(host) {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request) // by no proxy
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

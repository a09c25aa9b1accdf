package main

import (
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A failure is the error of a call, for people.
type failure struct {
	err    error
	line   string
	fields []string
}

// Error is one line: the code, what the peer says, and its reason.
func (f *failure) Error() string { return f.line }

// Unwrap returns the error of the call.
func (f *failure) Unwrap() error { return f.err }

// Details are the fields at fault, one a line.
func (f *failure) Details() []string { return f.fields }

// explain makes a failure of an error that carries a status, and leaves others
// as they are.
func explain(address string, err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	f := &failure{err: err}
	var reason string
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				f.fields = append(f.fields, v.GetField()+": "+v.GetDescription())
			}
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		}
	}
	message := s.Message()
	if len(f.fields) > 0 {
		message = "malformed request" // what the fields tell is not told twice
	}
	f.line = code.Code_name[int32(s.Code())] + ": " + strings.TrimSpace(message)
	if reason != "" {
		f.line += " (" + reason + ")"
	}
	if s.Code() == codes.Unavailable || s.Code() == codes.DeadlineExceeded {
		f.line += " [" + address + "]"
	}
	return f
}

// failures are those of several collectors, each told on a line of its own.
type failures struct{ lines []string }

// add notes the failure of a collector; none is none.
func (f *failures) add(collector string, err error) {
	if err != nil {
		f.lines = append(f.lines, collector+": "+err.Error())
	}
}

// err is an error that says what could not be done to how many, nil for none.
func (f *failures) err(what string) error {
	switch len(f.lines) {
	case 0:
		return nil
	case 1:
		return &failure{line: "1 collector " + what, fields: f.lines}
	default:
		return &failure{line: strconv.Itoa(len(f.lines)) + " collectors " + what, fields: f.lines}
	}
}

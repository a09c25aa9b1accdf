package wire

import (
	"fmt"
	"strings"
)

// A Violation says what is wrong with one field of a message.
type Violation struct {
	// Field is the path, like producer.labels[3].name.
	Field string

	// Description is for people.
	Description string
}

// Violations is the error for a message that is malformed.
type Violations []Violation

// Error lists the violations.
func (v Violations) Error() string {
	var b strings.Builder
	b.WriteString("malformed request")
	for i, one := range v {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + one.Field + ": " + one.Description)
	}
	return b.String()
}

// err is v as an error, nil when there are none.
func (v Violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return v
}

// maxViolations bounds what one message can make the registry say.
const maxViolations = 20

func (v *Violations) add(field, format string, args ...any) {
	if len(*v) < maxViolations {
		*v = append(*v, Violation{Field: field, Description: fmt.Sprintf(format, args...)})
	}
}

func (v *Violations) check(field string, err error) {
	if err != nil {
		v.add(field, "%v", err)
	}
}

func (v *Violations) checkNotNegative(field string, n int64) {
	if n < 0 {
		v.add(field, "%d is negative", n)
	}
}

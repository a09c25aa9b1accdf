package query

import (
	"fmt"

	"github.com/prometheus/prometheus/promql/parser"
)

// The parser's time grows with the square of what nests in a query, and the
// formatter's with the square of that times the query's length (13 s for 4 KiB
// of "1+1+..."). Neither can be interrupted, and both recurse.
const (
	// maxQueryNodes bounds the operators and brackets of a query.
	maxQueryNodes = 1000

	// maxQueryCost bounds their number, squared, times the query's length in
	// bytes: about 3 s of formatting.
	maxQueryCost = 4_000_000_000
)

// A boundedParser is Prometheus's parser that refuses what would cost too much
// to parse or to format.
type boundedParser struct{ parser.Parser }

// ParseExpr parses a query.
func (p boundedParser) ParseExpr(input string) (parser.Expr, error) {
	if err := checkQuery(input); err != nil {
		return nil, err
	}
	return p.Parser.ParseExpr(input)
}

// checkQuery counts what can nest. It takes time in proportion to the input.
func checkQuery(input string) error {
	lexer := parser.Lex(input)
	var item parser.Item
	nodes, braces := 0, 0
	for {
		lexer.NextItem(&item)
		switch {
		case item.Typ == parser.EOF, item.Typ == parser.ERROR:
			return nil // The parser knows what to say.
		case item.Typ == parser.LEFT_BRACE:
			braces++
		case item.Typ == parser.RIGHT_BRACE:
			braces--
		case braces > 0: // Matchers, of which there may be many.
		case item.Typ.IsOperator(), item.Typ == parser.LEFT_PAREN, item.Typ == parser.LEFT_BRACKET:
			nodes++
		}
		if nodes > maxQueryNodes || nodes*nodes*len(input) > maxQueryCost {
			return fmt.Errorf("query is too complex: %d or more operators and brackets in %d bytes", nodes, len(input))
		}
	}
}

"""Key bindings of the prompt."""

from textual.binding import Binding, BindingType

from lotr_tui.widgets.bindings import binding_table

_HIDDEN = """
new-line        | ctrl+j               | new_line                | new line        | Start another line
older           | up                   | older                   | older           | A line up, or an older prompt
newer           | down                 | newer                   | newer           | A line down, or a newer prompt
left            | left                 | cursor_left             | left            | A character to the left
right           | right                | cursor_right            | right           | A character to the right
word-left       | ctrl+left            | cursor_word_left        | word left       | A word to the left
word-right      | ctrl+right           | cursor_word_right       | word right      | A word to the right
home            | home,ctrl+a          | cursor_line_start       | line start      | Start of the line
end             | end                  | cursor_line_end         | line end        | End of the line
select-left     | shift+left           | cursor_left(True)       | select left     | Select a character to the left
select-right    | shift+right          | cursor_right(True)      | select right    | Select a character to the right
select-home     | shift+home           | cursor_line_start(True) | select to start | Select to the line start
select-end      | shift+end            | cursor_line_end(True)   | select to end   | Select to the line end
backspace       | backspace            | delete_left             | delete left     | Delete the character to the left
delete          | delete               | delete_right            | delete          | Delete the character to the right
delete-word     | ctrl+w,alt+backspace | delete_word_left        | delete word     | Delete the word to the left
delete-to-start | ctrl+u               | delete_to_start_of_line | delete to start | Delete to the line start
delete-to-end   | ctrl+k               | delete_to_end_of_line   | delete to end   | Delete to the line end
undo            | ctrl+z               | undo                    | undo            | Undo the last change
redo            | alt+z,ctrl+shift+z   | redo                    | redo            | Redo the change
paste           | ctrl+v               | paste                   | paste           | Paste the text copied in this app
complete        | tab                  | complete                | complete        | Complete the word, or leave
"""
PROMPT_BINDINGS: list[BindingType] = [
    Binding("enter", "send", "send", id="prompt.send", tooltip="Send the prompt"),
    *binding_table("prompt", _HIDDEN),
]
"""All keys of the prompt; `TextArea` has others that the session needs for itself."""

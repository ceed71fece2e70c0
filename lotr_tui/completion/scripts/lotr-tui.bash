# Completion of lotr-tui in bash 3.2 and later.
# In ~/.bashrc:  eval "$(lotr-tui completion bash)"

_lotr_tui() {
    local candidates candidate program=lotr-tui
    type -P lotr-tui > /dev/null || program=@PROGRAM@
    COMPREPLY=()
    candidates=$(command "$program" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null < /dev/null)
    if [[ $? -eq 3 ]]; then
        # The word has a variable in it, which only bash can expand; bash 3.2 has no compopt.
        type compopt > /dev/null 2>&1 && compopt -o default -o filenames +o nospace
        return
    fi
    while IFS= read -r candidate; do
        [[ -n $candidate ]] && COMPREPLY+=("$candidate")
    done <<< "$candidates"
}

complete -o nospace -F _lotr_tui lotr-tui

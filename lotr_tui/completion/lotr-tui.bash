# Completion of lotr-tui in bash. In ~/.bashrc:  eval "$(lotr-tui completion bash)"
_lotr_tui() {
    local line=${COMP_LINE:0:COMP_POINT} number=$COMP_CWORD last=${COMP_WORDS[COMP_CWORD]} word prefix value rest
    word=$last
    while ((number > 1)) && [[ $line != *[[:space:]]"$word" ]]; do word=${COMP_WORDS[--number]}$word; done
    # Readline replaces what follows a character such as "=", and without a quotation mark.
    [[ $last == *[!=:@]* ]] || last=
    prefix=${word%"$last"} prefix=${prefix//\\/} prefix=${prefix#--*=}
    value=${word//\\/} value=${value#[\"\']} value=${value#--*=}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        [[ $candidate == "$value"* ]] || continue
        rest=${candidate#"$prefix"}
        if [[ $word != [\"\']* ]]; then
            printf -v rest %q "$rest"
        elif [[ $rest == *[\"\'\\\$\`!]* ]]; then
            continue
        fi
        [[ -n $rest ]] && COMPREPLY+=("$rest")
        [[ $rest == *[=:] ]] && compopt -o nospace 2> /dev/null
    done < <(COLUMNS=999 _LOTR_TUI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS=$line command "$1" 2> /dev/null < /dev/null)
}

complete -o default -F _lotr_tui lotr-tui
